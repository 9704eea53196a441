"""Sends batches to actors and sees every job of them to its end: answered, dispatched again elsewhere, given up, or expired.

Each job handed to `submit` comes out of the sink exactly once, unless its partition is discarded first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import pyarrow as pa

from rayline.app_spec import AppSpec
from rayline.errors import WorkerError
from rayline.jobs import Job
from rayline.reports import ActorEndpoint, NodeState
from rayline.results import Outcome
from rayline.telemetry import traceparent_of
from rayline.wire import AnswerHead, BatchHead, JobStatus, Verdict, encode_request
from scheduler.batch import Batch, NodeIncarnation, next_batch_id
from scheduler.retry import Cause, GiveUp, decide
from scheduler.router import Router, Target
from scheduler.view import View
from workers.channel import Channel

_log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 0.1
MAX_PASSED: Final = 16
# An actor that its gateway does not see for so long is given up; shorter gaps are a gateway's restart.
UNSEEN_SECONDS: Final = 2.0
MAX_TRACED_JOBS: Final = 500
_CAUSES: Final = {
    Verdict.DRAINING: Cause.EVICTED,
    Verdict.UNREACHED: Cause.EVICTED,
    Verdict.BUSY: Cause.BUSY,
    Verdict.TIMEOUT: Cause.HUNG,
    Verdict.LOST: Cause.KILLED,
    Verdict.DONE: Cause.KILLED,
}


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """Where a batch was; its jobs share one, told apart by identity. Times are monotonic seconds; `size` counts its jobs."""

    cluster: str
    node: str
    app_version: str
    model_version: str | None
    batch_id: str
    size: int
    attempts: int
    dispatched: float
    answered: float
    execute_ms: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Jobs of one batch that an actor answered; all lists have the same length. `values` is None where there is no feature."""

    journey: Journey
    jobs: list[Job]
    statuses: list[int]
    values: list[bytes | None]
    error_types: list[str | None]
    error_messages: list[str | None]


class Sink(Protocol):
    """Where ended jobs go."""

    def answered(self, answers: Answers) -> None:
        """An actor answered these jobs."""

    def ended(self, jobs: list[Job], outcome: Outcome, error_type: str, error_message: str, attempts: int) -> None:
        """These jobs ended without an answer of their own."""


class ChannelFactory(Protocol):
    """Opens a channel to an actor; closing is the dispatcher's."""

    def __call__(self, endpoint: ActorEndpoint) -> Channel: ...


@dataclass(slots=True, eq=False)
class _Flight:
    batch: Batch
    target: Target
    dispatched: float
    unfinished: dict[int, Job]
    errors: list[Job]
    task: asyncio.Task[None] | None = None
    unseen_since: float | None = None
    abandoned: Verdict | None = None


class Dispatcher:
    """Owns the queue of ready batches, what is in flight, and the channels. Does not own the view, Kafka, or results.

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._view = view
        self._router = router
        self._sink = sink
        self._open_channel = channels
        self._prefix = batch_prefix
        self._clock = clock
        self._ready: deque[Batch] = deque()
        self._flights: set[_Flight] = set()
        self._channels: dict[str, Channel] = {}
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._next_sweep = 0.0
        self._failure: BaseException | None = None
        self.redispatched = 0

    @property
    def queued(self) -> int:
        """Batches that wait for an actor."""
        return len(self._ready)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    async def wait_quiet(self) -> None:
        """Until nothing waits and nothing is in flight."""
        await self._quiet.wait()

    def submit(self, batches: Iterable[Batch]) -> None:
        self._ready.extend(batches)
        self._quiet.clear()
        self._wake.set()

    def retain(self, partitions: Collection[tuple[str, int]]) -> None:
        """Forget the jobs of all other partitions than these (topic, number): they are another lane's now.

        What runs runs on; its answer is dropped.
        """
        kept = [(batch, [job for job in batch.jobs if (job.topic, job.partition) in partitions]) for batch in self._ready]
        self._ready = deque(
            batch if len(jobs) == len(batch.jobs) else batch.part(jobs, batch_id=batch.batch_id) for batch, jobs in kept if jobs
        )
        for flight in self._flights:
            for index in [i for i, job in flight.unfinished.items() if (job.topic, job.partition) not in partitions]:
                del flight.unfinished[index]
            flight.errors[:] = [job for job in flight.errors if (job.topic, job.partition) in partitions]
        self._wake.set()

    def update(self, spec: AppSpec) -> None:
        """A new version of the app is in force for what is dispatched from now on."""
        self._spec = spec
        self.refresh()

    def refresh(self) -> None:
        """The view changed: route by it, and fetch back what is in flight on nodes that are gone or silent."""
        now = self._clock()
        self._router.refresh(self._view, self._spec.version, now)
        for flight in list(self._flights):
            self._look_after(flight, now)
        current = self._router.instances() | {flight.target.endpoint.instance for flight in self._flights}
        for instance in [instance for instance in self._channels if instance not in current]:
            self._close_channel(instance)
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled. Raises what went wrong in a batch's own task, which nothing foreseen does."""
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                now = self._clock()
                if now >= self._next_sweep:
                    self._next_sweep = now + SWEEP_SECONDS
                    self._sweep(now)
                self._dispatch_ready(now)
                self._wake.clear()
                busy = bool(self._ready or self._flights)
                if not busy:
                    self._quiet.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_SECONDS if busy else None):
                        await self._wake.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop what runs and close the channels."""
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for instance in list(self._channels):
            self._close_channel(instance)

    def _dispatch_ready(self, now: float) -> None:
        """Send what can be sent. A batch that must avoid the only free node lets the others pass, and keeps its place."""
        passed: list[Batch] = []
        while self._ready:
            batch = self._ready.popleft()
            if batch.first_expiry <= now:
                live = self._expire(batch, batch.jobs, now)
                if not live:
                    continue
                batch = batch.part(live, batch_id=batch.batch_id)
            target = self._router.pick(now, batch.avoid)
            if target is not None:
                self._launch(batch, target, now)
                continue
            passed.append(batch)
            if not batch.avoid or len(passed) >= MAX_PASSED:
                break
        self._ready.extendleft(reversed(passed))

    def _launch(self, batch: Batch, target: Target, now: float) -> None:
        flight = _Flight(batch, target, now, dict(enumerate(batch.jobs)), [])
        self._flights.add(flight)
        flight.task = asyncio.create_task(self._fly(flight), name=f"batch {batch.batch_id}")
        flight.task.add_done_callback(lambda task: self._flown(flight, task))

    def _flown(self, flight: _Flight, task: asyncio.Task[None]) -> None:
        """The task of a flight ended without landing it: called off before its first step, or by an error nobody foresaw."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._wake.set()
        elif flight in self._flights:
            self._land(flight, flight.abandoned or Verdict.UNREACHED, "its node left or fell silent")

    def _sweep(self, now: float) -> None:
        """End what expired, in the queue and in flight, and let paused actors back in."""
        self._router.wake(now)
        for flight in self._flights:
            if flight.batch.first_expiry <= now:
                expired = [index for index, job in flight.unfinished.items() if job.expires <= now]
                jobs = [flight.unfinished.pop(index) for index in expired]
                self._end_expired(flight.batch, jobs)
        if any(batch.first_expiry <= now for batch in self._ready):
            waiting, self._ready = self._ready, deque()
            for batch in waiting:
                live = self._expire(batch, batch.jobs, now)
                if live:
                    self._ready.append(batch if len(live) == len(batch.jobs) else batch.part(live, batch_id=batch.batch_id))

    def _expire(self, batch: Batch, jobs: Iterable[Job], now: float) -> list[Job]:
        """End the expired ones; returns the others."""
        live: list[Job] = []
        expired: list[Job] = []
        for job in jobs:
            (expired if job.expires <= now else live).append(job)
        self._end_expired(batch, expired)
        return live

    def _end_expired(self, batch: Batch, jobs: list[Job]) -> None:
        if jobs:
            where = "while it was being worked on" if batch.attempts else "before a worker was free"
            self._sink.ended(
                jobs, Outcome.DEADLINE_EXCEEDED, "rayline.DeadlineExceeded", f"the job's deadline passed {where}", batch.attempts
            )

    async def _fly(self, flight: _Flight) -> None:
        batch, target = flight.batch, flight.target
        batch.attempts += 1
        remaining = batch.last_expiry - flight.dispatched
        head = BatchHead(
            batch=batch.batch_id,
            content_type=batch.content_type,
            budget_ms=max(1.0, remaining * 1000),
            trace=_traceparents(batch),
        )
        request = encode_request([job.payload for job in batch.jobs])
        reason: str | None = None
        try:
            final = await self._channel(target.endpoint).exchange(
                request,
                head,
                timeout_seconds=remaining,
                on_chunk=lambda answer, answer_head: self._take(flight, answer, answer_head),
            )
            verdict, reason = final.verdict, final.reason
        except asyncio.CancelledError:
            if flight not in self._flights:
                raise
            verdict, reason = flight.abandoned or Verdict.UNREACHED, "its node left or fell silent"
        except WorkerError as error:
            verdict, reason = Verdict.LOST, str(error)
        self._land(flight, verdict, reason)

    def _take(self, flight: _Flight, answer: pa.RecordBatch, head: AnswerHead) -> None:
        """Take over the jobs of one answer that still wait for theirs."""
        indexes: list[int] = answer.column(0).to_pylist()
        statuses: list[int] = answer.column(1).to_pylist()
        values: list[bytes | None] = answer.column(2).to_pylist()
        if answer.column(3).null_count == len(indexes):
            types: list[str | None] = [None] * len(indexes)
            messages: list[str | None] = types
        else:
            types = answer.column(3).to_pylist()
            messages = answer.column(4).to_pylist()
        unfinished = flight.unfinished
        retry_errors = flight.batch.errors < self._spec.retries.errors
        kept: list[int] = []
        jobs: list[Job] = []
        for position, index in enumerate(indexes):
            job = unfinished.pop(index, None)
            if job is None:
                continue
            if retry_errors and statuses[position] == JobStatus.ERROR:
                flight.errors.append(job)
                continue
            kept.append(position)
            jobs.append(job)
        if not jobs:
            return
        if len(jobs) != len(indexes):
            statuses = [statuses[position] for position in kept]
            values = [values[position] for position in kept]
            types = [types[position] for position in kept]
            messages = [messages[position] for position in kept]
        target, batch = flight.target, flight.batch
        journey = Journey(
            cluster=target.cluster_name,
            node=target.node_name,
            app_version=target.endpoint.version,
            model_version=head.model_version,
            batch_id=batch.batch_id,
            size=len(batch.jobs),
            attempts=batch.attempts,
            dispatched=flight.dispatched,
            answered=self._clock(),
            execute_ms=head.execute_ms,
        )
        self._sink.answered(Answers(journey, jobs, statuses, values, types, messages))

    def _land(self, flight: _Flight, verdict: Verdict, reason: str | None) -> None:
        """The batch is back from its actor: settle the actor's account and what is unfinished."""
        now = self._clock()
        self._flights.discard(flight)
        target = flight.target
        done = verdict is Verdict.DONE and not flight.unfinished
        self._router.finished(target, now, seconds=now - flight.dispatched if done else None)
        if verdict is Verdict.BUSY:
            self._router.busy(target, now)
        elif verdict is Verdict.DRAINING:
            self._router.draining(target, now)
        elif not done:
            self._router.lost(target, now)
            self._close_channel(target.endpoint.instance)
            _log.warning("batch %s: %s on %s (%s)", flight.batch.batch_id, verdict, target.node, reason)
        node = (target.node, target.incarnation)
        cause = _CAUSES[verdict]
        if cause is Cause.KILLED and self._evicted(node):
            cause = Cause.EVICTED
        self._again(flight.batch, list(flight.unfinished.values()), cause, node)
        self._again(flight.batch, flight.errors, Cause.ERROR, node)
        self._wake.set()

    def _again(self, batch: Batch, jobs: list[Job], cause: Cause, node: NodeIncarnation) -> None:
        live = self._expire(batch, jobs, self._clock())
        if not live:
            return
        decision = decide(batch, live, cause, node=node, retries=self._spec.retries, prefix=self._prefix, evicted=self._evicted)
        if isinstance(decision, GiveUp):
            self._sink.ended(live, decision.outcome, decision.error_type, decision.error_message, batch.attempts)
            return
        self.redispatched += len(live)
        self._ready.extendleft(reversed(decision.batches))

    def _evicted(self, node: NodeIncarnation) -> bool:
        known = self._view.get(node[0])
        if known is None:
            return True
        return known.report.incarnation != node[1] or known.report.state is not NodeState.READY

    def _look_after(self, flight: _Flight, now: float) -> None:
        """Fetch a batch back from an actor of which nothing more will come, or which is unseen while others are well."""
        target, known = flight.target, self._view.get(flight.target.node)
        if flight.task is None or flight.abandoned is not None:
            return
        gone = known is None or known.report.incarnation != target.incarnation or known.report.state is NodeState.GONE
        silent = known is not None and known.suspect(now) and any(not node.suspect(now) for node in self._view.nodes())
        seen = known is not None and any(actor.instance == target.endpoint.instance for actor in known.report.actors or ())
        if seen or gone:
            flight.unseen_since = None
        elif flight.unseen_since is None:
            flight.unseen_since = now
        unseen = flight.unseen_since is not None and now - flight.unseen_since > UNSEEN_SECONDS
        if gone or silent or unseen:
            flight.abandoned = Verdict.LOST if unseen else Verdict.UNREACHED
            flight.task.cancel()

    def _channel(self, endpoint: ActorEndpoint) -> Channel:
        channel = self._channels.get(endpoint.instance)
        if channel is None:
            channel = self._channels[endpoint.instance] = self._open_channel(endpoint)
        return channel

    def _close_channel(self, instance: str) -> None:
        channel = self._channels.pop(instance, None)
        if channel is not None:
            channel.close()


def _traceparents(batch: Batch) -> dict[int, str]:
    """The sampled jobs of a batch, by position; a head has room for so many."""
    sampled = ((index, job.span) for index, job in enumerate(batch.jobs) if job.span is not None)
    return {index: traceparent_of(span) for index, span in islice(sampled, MAX_TRACED_JOBS)}


def new_batch(jobs: list[Job], size_bytes: int, prefix: str) -> Batch:
    """A first batch of jobs of one content type."""
    return Batch(batch_id=next_batch_id(prefix), content_type=jobs[0].content_type, jobs=jobs, size_bytes=size_bytes)
