"""What a node has and does, read from /proc and cgroups once for each beat."""

from workers.sampling.cards import Cards, NamedCards, find_cards
from workers.sampling.sampler import Sampler

__all__ = ["Cards", "NamedCards", "Sampler", "find_cards"]
