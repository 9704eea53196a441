"""`rayline demo`: pictures with text go through the whole platform while a pod is evicted; every result is counted."""

from deploy.demo.command import run

__all__ = ["run"]
