"""Rayline on one machine: broker, Ray clusters, pods and lanes as child processes of one launcher."""
