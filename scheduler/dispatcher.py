"""Sends batches to actors and sees every job of them to its end: answered, dispatched again elsewhere, given up, or expired.

Each job handed to `submit` comes out of the sink exactly once, unless its partition is discarded first.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

import pyarrow as pa

from rayline.app_spec import AppSpec
from rayline.errors import WorkerError
from rayline.jobs import Job
from rayline.reports import NodeState
from rayline.results import Outcome
from rayline.waits import news_by
from rayline.wire import AnswerHead, BatchHead, Verdict, encode_request, pack_job_ids
from scheduler.batch import Batch, Cause, Death, Sent, Trail, next_batch_id
from scheduler.budget import RetryBudget
from scheduler.channels import ChannelFactory, Channels
from scheduler.flights import Answers, CalledOff, Flight, Journey
from scheduler.hedging import ServiceTimes
from scheduler.ports import Sink, SuspectMemory
from scheduler.retry import Again, Decision, Fate, GiveUp, Wait, decide
from scheduler.rivals import Rivals
from scheduler.router import Router
from scheduler.statistics import Counters, DispatchStatistics
from scheduler.tracing import BatchTraces, around
from scheduler.trials import Trials
from scheduler.view import Standing, View
from scheduler.waiting import Waiting

__all__ = ["Answers", "ChannelFactory", "Dispatcher", "Journey", "new_batch"]

_log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 0.1
# When nobody looked for so much longer than a sweep, this process stood still: that is no fault of what is in flight.
STANDSTILL_SECONDS: Final = 0.5
MAX_PASSED: Final = 16
# However slow actors are, a job that has more than this share of its time left is sent.
MOST_NEEDED_SHARE: Final = 0.5
# An actor that its gateway does not see for so long is given up; shorter gaps are a gateway's restart.
UNSEEN_SECONDS: Final = 2.0
_CALLED_OFF: Final = {
    CalledOff.NODE_LEFT: "its node left",
    CalledOff.NODE_SILENT: "its node is silent",
    CalledOff.ACTOR_UNSEEN: "its actor is not seen any more",
}
_CAUSES: Final = {
    Verdict.DRAINING: Cause.EVICTED,
    Verdict.UNREACHED: Cause.REFUSED,
    Verdict.BUSY: Cause.REFUSED,
    Verdict.TIMEOUT: Cause.HUNG,
    Verdict.LOST: Cause.KILLED,
    Verdict.DONE: Cause.KILLED,
}


class Dispatcher:
    """Owns the batches that wait, what is in flight, the budget of retries and hedges, and the channels. Does not own the view,
    Kafka, or results.

    Life: `submit` and `refresh` at any time; `run` until cancelled; `close`. Batches that fail go before new ones.
    """

    def __init__(
        self,
        *,
        spec: AppSpec,
        view: View,
        router: Router,
        sink: Sink,
        channels: ChannelFactory,
        batch_prefix: str,
        memory: SuspectMemory | None = None,
        traces: BatchTraces | None = None,
        budget: RetryBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._view = view
        self._router = router
        self._sink = sink
        self._prefix = batch_prefix
        self._memory = memory
        self._traces = traces
        self._trials = Trials(view=view, prefix=batch_prefix)
        self._clock = clock
        self._waiting = Waiting()
        self._flights: set[Flight] = set()
        self._budget = budget or RetryBudget(now=clock())
        self._times = ServiceTimes()
        self._counters = Counters()
        self._rivals = Rivals(
            view=view, router=router, budget=self._budget, times=self._times, counters=self._counters, prefix=batch_prefix
        )
        self._channels = Channels(channels)
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._next_sweep = 0.0
        self._looked_at = math.inf
        self._failure: BaseException | None = None

    @property
    def queued(self) -> int:
        """Batches that wait for an actor."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def budget(self) -> RetryBudget:
        """What retries and hedges draw on, to be looked at."""
        return self._budget

    def statistics(self) -> DispatchStatistics:
        return self._counters.snapshot()

    async def wait_quiet(self) -> None:
        """Until nothing waits and nothing is in flight."""
        await self._quiet.wait()

    def submit(self, batches: Iterable[Batch]) -> None:
        self._waiting.submit(batches)
        self._quiet.clear()
        self._wake.set()

    def retain(self, partitions: Collection[tuple[str, int]]) -> None:
        """Forget the jobs of all other partitions than these (topic, number): they are another lane's now.

        What runs runs on; its answer is dropped.
        """
        self._waiting.retain(partitions)
        for flight in self._flights:
            flight.forget([job for job in flight.unfinished.values() if (job.topic, job.partition) not in partitions])
            flight.errors[:] = [job for job in flight.errors if (job.topic, job.partition) in partitions]
        self._wake.set()

    def update(self, spec: AppSpec) -> None:
        """A new version of the app is in force for what is dispatched from now on."""
        self._spec = spec
        self.refresh()

    def tune_budget(self, *, extra_share: float | None = None, reserve_jobs: int | None = None) -> None:
        """Retries and hedges draw on another budget from now on (see `RetryBudget.tune`)."""
        self._budget.tune(extra_share=extra_share, reserve_jobs=reserve_jobs)

    def tune_hedging(self, *, late_factor: float | None = None, late_floor_seconds: float | None = None) -> None:
        """A batch is late, and hedged, from another time on, those in flight as well (see `ServiceTimes.tune`)."""
        self._times.tune(late_factor=late_factor, late_floor_seconds=late_floor_seconds)
        for flight in self._flights:
            flight.late_at = self._late_at(flight)

    def refresh(self) -> None:
        """The view changed: route by it, and fetch back what is in flight on nodes that are gone."""
        now = self._clock()
        self._forgive_standstill(now)
        self._router.refresh(self._view, self._spec.version, now)
        for flight in self._flights:
            self._look_after(flight, now)
        self._rivals.hedge(self._flights, now, nothing_ready=self._waiting.nothing_ready, launch=self._launch)
        self._channels.keep(self._router.instances() | {flight.target.endpoint.instance for flight in self._flights})
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled. Raises what went wrong in a batch's own task, which nothing foreseen does."""
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                now = self._clock()
                self._forgive_standstill(now)
                if now >= self._next_sweep:
                    self._next_sweep = now + SWEEP_SECONDS
                    self._sweep(now)
                self._dispatch_again(now)
                self._dispatch_fresh(now)
                self._wake.clear()
                busy = bool(self._waiting or self._flights)
                if not busy:
                    self._quiet.set()
                await news_by(self._wake, time.monotonic() + SWEEP_SECONDS if busy else None)
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop what runs and close the channels."""
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._channels.close()

    # Sending.

    def _dispatch_fresh(self, now: float) -> None:
        fresh = self._waiting.fresh
        while fresh:
            batch = fresh[0]
            # Where nothing else waits for it, an actor's time costs nothing.
            needed = self._times.needed_seconds(len(batch.jobs)) if len(self._waiting) > 1 else 0.0
            if batch.first_expiry <= now + needed:
                fresh.popleft()
                live = self._expire(batch.trail, batch.jobs, now, needed=needed)
                if live:
                    fresh.appendleft(batch.part(live))
                continue
            target = self._router.pick(now, batch=batch.batch_id)
            if target is None:
                return
            fresh.popleft()
            self._budget.deposit(len(batch.jobs), now)
            self._counters.first += len(batch.jobs)
            self._launch(Flight(batch, target, now, dict(enumerate(batch.jobs)), []))

    def _dispatch_again(self, now: float) -> None:
        """In their order, as far as the budget goes. One that cannot go where it may lets others pass, and keeps its place."""
        again = self._waiting.again
        passed: list[Batch] = []
        while again and len(passed) < MAX_PASSED:
            batch = again.popleft()
            paid = batch.again is not None
            scarce = paid or len(self._waiting) + len(passed) > 0
            live = self._expire(
                batch.trail, batch.jobs, now, needed=self._times.needed_seconds(len(batch.jobs)) if scarce else 0.0
            )
            if not live:
                continue
            if len(live) != len(batch.jobs):
                batch = batch.part(live)
            if paid and not self._budget.affords(len(live), now):
                self._counters.short_of_budget += 1
                passed.append(batch)
                break
            target = self._router.pick(now, batch.avoid, alone=batch.suspect, batch=batch.batch_id)
            if target is None:
                passed.append(batch)
                continue
            if batch.again is not None:
                self._budget.spend(len(live), now)
                self._counters.repeat(batch.again, len(live))
            else:
                self._budget.deposit(len(live), now)
                self._counters.first += len(live)
            self._launch(Flight(batch, target, now, dict(enumerate(live)), [], paid=paid))
        self._waiting.put_back(passed)

    def _launch(self, flight: Flight) -> None:
        batch, target = flight.batch, flight.target
        flight.sent = Sent(
            cluster=target.cluster_name,
            node=target.node_name,
            app_version=target.endpoint.version,
            batch_id=batch.batch_id,
            size=len(batch.jobs),
            pick=self._router.last_pick(),
        )
        batch.trail = batch.trail.sent_to(flight.sent)
        flight.alone = batch.suspect
        flight.late_at = self._late_at(flight)
        self._flights.add(flight)
        if self._traces is not None:
            self._traces.launched(flight)
        flight.task = asyncio.create_task(self._fly(flight), name=f"batch {batch.batch_id}")
        flight.task.add_done_callback(lambda task: self._flown(flight, task))

    def _late_at(self, flight: Flight) -> float:
        return flight.dispatched + self._times.late_after_seconds(len(flight.batch.jobs), left_seconds=flight.budget_seconds)

    async def _fly(self, flight: Flight) -> None:
        batch, target = flight.batch, flight.target
        if flight.alone and self._memory is not None:
            await self._memory.remember(batch, target)
        remaining = max(batch.last_expiry - self._clock(), 0.001)
        head = BatchHead(
            batch=batch.batch_id,
            content_type=batch.content_type,
            budget_ms=max(1.0, remaining * 1000),
            trace=self._traces.head(flight) if self._traces is not None else {},
            alone=flight.alone,
            jobs=pack_job_ids(batch.jobs),
        )
        request = encode_request([job.payload for job in batch.jobs])
        try:
            final = await self._channels.to(target.endpoint).exchange(
                request,
                head,
                timeout_seconds=remaining,
                on_chunk=lambda answer, answer_head: self._take(flight, answer, answer_head),
            )
            verdict, reason = final.verdict, final.reason
        except WorkerError as error:
            verdict, reason = Verdict.LOST, str(error)
        self._land(flight, verdict, reason)

    def _flown(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """The task of a flight ended without landing it: called off, or by an error nobody foresaw."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._wake.set()
        elif flight in self._flights:
            self._land_called_off(flight)

    # Answers.

    def _take(self, flight: Flight, answer: pa.RecordBatch, head: AnswerHead) -> None:
        raised = len(flight.errors)
        retry_errors = flight.batch.errors < self._spec.retries.errors
        answers = flight.take(answer, head, retry_errors=retry_errors, now=self._clock())
        if flight.rival is not None:
            self._rivals.answered(flight, [*(answers.jobs if answers is not None else ()), *flight.errors[raised:]])
        if answers is not None:
            self._sink.answered(answers)

    def _land(self, flight: Flight, verdict: Verdict, reason: str | None) -> None:
        """The batch is back from its actor: settle the actor's account and what is unfinished."""
        now = self._clock()
        target = flight.target
        done = verdict is Verdict.DONE and not flight.unfinished
        seconds = now - flight.dispatched if done else None
        if seconds is not None:
            self._times.observe(len(flight.batch.jobs), seconds)
        self._leave(flight, now, seconds)
        if self._traces is not None:
            self._traces.landed(flight, verdict.value, reason, now)
        if verdict is Verdict.BUSY:
            self._router.busy(target, now)
        elif verdict is Verdict.DRAINING:
            self._router.draining(target, now)
        elif verdict is Verdict.TIMEOUT and flight.was_short:
            # Its actor had no fair chance: that is no evidence against it.
            self._times.too_short(flight.budget_seconds, most_seconds=self._spec.sla_seconds * MOST_NEEDED_SHARE)
        elif not done:
            self._lose(flight, f"{verdict} ({reason})", now)
        cause = _CAUSES[verdict]
        if cause is Cause.REFUSED:
            self._counters.refuse(flight.batch.again if flight.paid else None, len(flight.batch.jobs), hedge=flight.hedge)
            self._budget.hand_back(len(flight.batch.jobs), now, paid=flight.paid)
        self._settle(flight, cause, now)

    def _land_called_off(self, flight: Flight) -> None:
        now = self._clock()
        self._leave(flight, now, None)
        if self._traces is not None and flight.called_off is not None:
            self._traces.landed(flight, flight.called_off.name.lower(), _CALLED_OFF.get(flight.called_off), now)
        if flight.called_off is CalledOff.BEATEN:
            if not flight.hedge:
                # It was overtaken: whatever ails its actor, the next batch is better off elsewhere for a moment.
                self._router.lost(flight.target, now)
            self._settle(flight, Cause.EVICTED, now)
            return
        assert flight.called_off is not None
        self._lose(flight, _CALLED_OFF[flight.called_off], now)
        self._settle(flight, Cause.KILLED if flight.called_off is CalledOff.ACTOR_UNSEEN else Cause.EVICTED, now)

    def _leave(self, flight: Flight, now: float, seconds: float | None) -> None:
        self._flights.discard(flight)
        # 0 where nothing of any size was measured; then this batch tells the router nothing of its time, either.
        usual_seconds = self._times.expected_seconds(len(flight.batch.jobs)) or 1.0
        self._router.finished(
            flight.target,
            now,
            seconds=seconds,
            execute_seconds=flight.execute_seconds,
            usual_seconds=usual_seconds,
            alone=flight.alone,
        )
        self._wake.set()

    def _lose(self, flight: Flight, why: str, now: float) -> None:
        self._router.lost(flight.target, now)
        with around(flight):
            _log.warning("batch %s on %s: %s", flight.batch.batch_id, flight.target.node, why)

    # What did not finish.

    def _settle(self, flight: Flight, cause: Cause, now: float) -> None:
        batch, target = flight.batch, flight.target
        unfinished = list(flight.unfinished.values())
        accused = flight.accused()
        # Its worker may have died, or may yet: only one that handed it back is known to be well.
        apart = cause is Cause.KILLED or flight.called_off is not None
        death: Death | None = None
        if cause is Cause.KILLED and unfinished:
            death = Death(target.node, target.incarnation, now, alone=accused is not None)
            waited = flight.alone and flight.begins is None
            if waited or self._trials.fate(death, now) is Fate.LEFT:
                cause, death = Cause.EVICTED, None
        rival = flight.rival
        unfinished = self._rivals.part(flight, unfinished, cause, death)
        if rival is not None and rival.batch.suspect and self._memory is not None:
            self._memory.note(rival.batch)
        rules = self._trials.rules(self._spec, now)
        for jobs, why in ((unfinished, cause), (flight.errors, Cause.ERROR)):
            # A call is also given up at the last deadline of its batch; that is no evidence that it hung.
            trail = batch.trail if why is Cause.HUNG else batch.trail.ended(flight.sent, why)
            live = self._expire(trail, jobs, now)
            if live:
                named = accused if accused in live else None
                self._follow(
                    decide(batch, live, why, rules, node=target.node, sent=flight.sent, death=death, accused=named, apart=apart)
                )

    def _follow(self, decisions: Iterable[Decision]) -> None:
        again: list[Batch] = []
        for decision in decisions:
            if self._memory is not None and decision.batch.suspect:
                self._memory.note(decision.batch)
            match decision:
                case Again(batch):
                    again.append(batch)
                case Wait(batch):
                    self._waiting.hold(batch)
                case GiveUp(batch, outcome, error_type, error_message):
                    if outcome is Outcome.QUARANTINED:
                        self._counters.quarantined += len(batch.jobs)
                    self._sink.ended(batch.jobs, outcome, error_type, error_message, batch.trail)
        self._waiting.put_back(again)

    # Watching.

    def _sweep(self, now: float) -> None:
        """End what expired, in the queue and in flight; let paused actors back in; hedge what is late."""
        self._router.wake(now)
        for batch, jobs in self._waiting.take_expired(now):
            self._end_expired(batch.trail, jobs)
        # A hedge knows of the flight before it.
        for flight in sorted((one for one in self._flights if one.batch.first_expiry <= now), key=lambda one: not one.hedge):
            expired = [job for job in flight.unfinished.values() if job.expires <= now]
            flight.forget(expired)
            if flight.rival is not None:
                flight.rival.forget(expired)
            self._end_expired(flight.trail, expired)
        if self._waiting.held:
            rules = self._trials.rules(self._spec, now)
            for batch in self._waiting.take_held():
                self._follow(self._trials.reopen(batch, rules, now))
        self._rivals.hedge(self._flights, now, nothing_ready=self._waiting.nothing_ready, launch=self._launch)

    def _forgive_standstill(self, now: float) -> None:
        """Answers that came while this process stood still are read after this: nothing is late or unseen by that."""
        stood = now - self._looked_at
        self._looked_at = now
        if stood > SWEEP_SECONDS + STANDSTILL_SECONDS:
            for flight in self._flights:
                flight.late_at += stood
                if flight.unseen_since is not None:
                    flight.unseen_since += stood

    def _look_after(self, flight: Flight, now: float) -> None:
        """Fetch a batch back from an actor of which nothing more will come, or which is unseen while others are well."""
        target, known = flight.target, self._view.get(flight.target.node)
        gone = known is None or known.report.incarnation != target.incarnation or known.report.state is NodeState.GONE
        seen = known is not None and any(actor.instance == target.endpoint.instance for actor in known.report.actors or ())
        if seen or gone:
            flight.unseen_since = None
        elif flight.unseen_since is None:
            flight.unseen_since = now
        if gone or self._view.standing(target.node, now) is Standing.LOST:
            flight.call_off(CalledOff.NODE_LEFT)
        elif flight.unseen_since is not None and now - flight.unseen_since > UNSEEN_SECONDS:
            flight.call_off(CalledOff.ACTOR_UNSEEN)

    def _expire(self, trail: Trail, jobs: Iterable[Job], now: float, *, needed: float = 0.0) -> list[Job]:
        """End those whose deadline passes within the seconds that are needed; returns the others."""
        live: list[Job] = []
        expired: list[Job] = []
        for job in jobs:
            (expired if job.expires <= now + needed else live).append(job)
        self._end_expired(trail, expired, needed=needed)
        return live

    def _end_expired(self, trail: Trail, jobs: list[Job], *, needed: float = 0.0) -> None:
        if not jobs:
            return
        if needed:
            again = "another attempt" if trail.attempts else "an attempt"
            why = f"the job's deadline leaves no time for {again}, which takes about {needed:.2g} s"
        else:
            why = f"the job's deadline passed {'while it was being worked on' if trail.attempts else 'before a worker was free'}"
        self._sink.ended(jobs, Outcome.DEADLINE_EXCEEDED, "rayline.DeadlineExceeded", why, trail)


def new_batch(jobs: list[Job], size_bytes: int, prefix: str) -> Batch:
    """A first batch of jobs of one content type."""
    return Batch(batch_id=next_batch_id(prefix), content_type=jobs[0].content_type, jobs=jobs, size_bytes=size_bytes)
