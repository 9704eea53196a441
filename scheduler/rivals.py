"""Two flights of the same jobs: when a second one starts, which answer counts, and what is left when one of them ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from rayline.jobs import Job
from scheduler.batch import Cause, Death, next_batch_id
from scheduler.budget import RetryBudget
from scheduler.flights import CalledOff, Flight
from scheduler.hedging import ServiceTimes, other_domains
from scheduler.router import Router
from scheduler.statistics import Counters
from scheduler.tracing import around
from scheduler.view import View

_log = logging.getLogger(__name__)


class Rivals:
    """Pairs flights. Owns neither the flights nor the budget that a hedge is paid from.

    A job is in two flights at most, and a second one never starts for suspects. The first answer counts, the other flight forgets
    the job, and is called off with its last.
    """

    def __init__(
        self, *, view: View, router: Router, budget: RetryBudget, times: ServiceTimes, counters: Counters, prefix: str
    ) -> None:
        self._view = view
        self._router = router
        self._budget = budget
        self._times = times
        self._counters = counters
        self._prefix = prefix

    def hedge(self, flights: Collection[Flight], now: float, *, nothing_ready: bool, launch: Callable[[Flight], None]) -> None:
        """Give what a silent node holds to another one beside it, and what is late where nothing else wants the place.

        Suspects are taken away from a silent node: a second flight might cost a second worker.
        """
        for flight in list(flights):
            if flight.called_off is not None or not flight.unfinished:
                continue
            silent = self._view.suspect(flight.target.node, now)
            if flight.rival is not None:
                if silent and self._view.suspect(flight.rival.target.node, now):
                    flight.call_off(CalledOff.NODE_LEFT)
            elif flight.batch.suspect:
                if silent:
                    flight.call_off(CalledOff.NODE_SILENT)
            elif silent or (now > flight.late_at and nothing_ready):
                hedge = self._hedge_of(flight, now)
                if hedge is not None:
                    launch(hedge)
                    flight.batch.trail = hedge.batch.trail

    def answered(self, flight: Flight, jobs: Collection[Job]) -> None:
        """The first answer counts: a rival with nothing left to do is called off."""
        rival = flight.rival
        if rival is None:
            return
        if flight.hedge:
            self._counters.hedge_wins += len(jobs)
        rival.forget(jobs)
        if not rival.unfinished:
            rival.call_off(CalledOff.BEATEN)

    def part(self, flight: Flight, unfinished: list[Job], cause: Cause, death: Death | None) -> list[Job]:
        """A flight has ended; returns those of its jobs that no rival goes on with.

        A rival may be about to lose its worker, too, and nobody could call it off in time: it goes on, its batch knows of both.
        """
        rival = flight.rival
        if rival is None:
            return unfinished
        flight.rival = rival.rival = None
        running = set(rival.unfinished.values())
        if death is not None and not running.isdisjoint(unfinished):
            rival.batch.deaths = (*rival.batch.deaths, death)
            rival.batch.suspects = max(rival.batch.suspects, flight.batch.suspects or len(unfinished))
        if cause is Cause.REFUSED or not running.isdisjoint(unfinished):
            rival.batch.trail = rival.batch.trail.ended(flight.sent, cause)
        rival.batch.avoid |= {flight.target.node}
        return [job for job in unfinished if job not in running]

    def _hedge_of(self, flight: Flight, now: float) -> Flight | None:
        """A second flight, in another failure domain, for the unfinished jobs whose deadline allows it; None without place or
        budget."""
        needed = self._times.expected_seconds(len(flight.unfinished))
        jobs = [job for job in flight.unfinished.values() if job.expires - now > needed]
        if not jobs:
            return None
        if not self._budget.affords(len(jobs), now):
            self._counters.short_of_budget += 1
            return None
        batch = flight.batch
        part = batch.part(jobs, batch_id=next_batch_id(self._prefix), avoid=batch.avoid | {flight.target.node})
        for avoid in other_domains(self._view.nodes(), flight.target.node):
            target = self._router.pick(now, avoid | batch.avoid, hedge=True, batch=part.batch_id)
            if target is not None:
                break
        else:
            return None
        self._budget.spend(len(jobs), now)
        self._counters.hedged += len(jobs)
        with around(flight):
            _log.info(
                "batch %s on %s is late: hedged as %s on %s", batch.batch_id, flight.target.node, part.batch_id, target.node
            )
        flight.rival = Flight(part, target, now, dict(enumerate(jobs)), [], paid=True, hedge=True, rival=flight)
        return flight.rival
