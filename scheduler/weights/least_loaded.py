"""Weights that follow how little a node has to do by its own last word."""

from __future__ import annotations

from rayline.app_spec import SchedulingPolicy
from scheduler.weights.fleet import Column, Fleet
from scheduler.weights.policy import Weights, power_of


class LeastLoadedWeights:
    """The inverse of the jobs a core would have with one more: `cores / (jobs in flight + 1)`.

    It knows no more than the last report: until the next one all lanes prefer the same nodes.
    """

    name = SchedulingPolicy.LEAST_LOADED
    guards_room = False

    def weigh(self, fleet: Fleet, now: float) -> Weights:  # noqa: ARG002 - the interface gives the time
        cores, jobs = power_of(fleet), fleet.column(Column.JOBS_IN_FLIGHT)
        return Weights(cores / (jobs + 1.0), {"cores": cores, "jobs_in_flight": jobs.copy()})
