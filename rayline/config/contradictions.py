"""Values that are right each by itself and contradict each other: how few must go. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

# Of all values of a process, by setting: the settings that contradict each other, and why (cause and remedy).
Contradictions = Callable[[Mapping[str, Any]], Mapping[tuple[str, ...], str]]
T = TypeVar("T")


def none_known(_: Mapping[str, Any]) -> Mapping[tuple[str, ...], str]:
    """Of a process whose settings do not touch each other."""
    return {}


def fewest(candidates: Sequence[T], enough: Callable[[frozenset[T]], bool]) -> frozenset[T]:
    """The smallest set of candidates that is enough, of several the one with the first candidates; empty where none is.

    Tries every set: for a handful of candidates.
    """
    for count in range(1, len(candidates) + 1):
        for some in map(frozenset, combinations(candidates, count)):
            if enough(some):
                return some
    return frozenset()
