"""Weights that follow what a node has, whatever it does."""

from __future__ import annotations

from rayline.app_spec import SchedulingPolicy
from scheduler.weights.fleet import Column, Fleet
from scheduler.weights.policy import Weights, power_of


class StaticWeights:
    """A node's share of the work is its share of the cores (or of the cards, by their coefficients)."""

    name = SchedulingPolicy.STATIC
    guards_room = False

    def weigh(self, fleet: Fleet, now: float) -> Weights:  # noqa: ARG002 - the interface gives the time
        promised = fleet.column(Column.CPUS) if not fleet.counts_cards else power_of(fleet)
        return Weights(promised.copy(), {"cores": promised.copy()})
