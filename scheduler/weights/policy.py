"""What a weight policy is: from the facts of a fleet to one weight for each node, with the factors it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rayline.app_spec import SchedulingPolicy
from scheduler.weights.fleet import Column, Fleet, Floats


@dataclass(frozen=True, slots=True)
class Weights:
    """One column of weights and one for each factor, rows as in the fleet. NaN: cannot be said; never 0 for that."""

    values: Floats
    factors: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Weighed:
    """One node's weight as it is in force, its factors (None: not known) and what was done to it, for people."""

    weight: float
    factors: Mapping[str, float | None]
    note: str


class WeightPolicy(Protocol):
    """Weighs all nodes at once. What it remembers between two updates stands in the fleet's own columns for that.

    `guards_room` says whether a lane holds back from nodes whose cores are taken as long as others have some left.
    """

    @property
    def name(self) -> SchedulingPolicy: ...

    @property
    def guards_room(self) -> bool: ...

    def weigh(self, fleet: Fleet, now: float) -> Weights:
        """`now` in monotonic seconds, never before that of the last call. Values may be NaN, but not infinite or below 0."""


def power_of(fleet: Fleet) -> Floats:
    """What a node could do with nothing else on it: its cards by their coefficients where the app works on cards, else its cores.

    Cores are what the platform promised, or less where the node's own limit is lower now.
    """
    cores = np.fmin(fleet.column(Column.CPUS), fleet.column(Column.CORES))
    if not fleet.counts_cards:
        return cores
    cards = fleet.column(Column.CARDS)
    return np.where(np.isnan(cards), cores, cards)
