"""Spans of batches and of their attempts: which node took a batch, in which attempt, and what it said.

One batch serves jobs of many traces. Its span stands in the trace of the first of them and links to the others, which link back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from rayline.telemetry import JobSpan, Tracing, current, traceparent_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from scheduler.flights import Flight

# OpenTelemetry's own name.
BATCH_MESSAGES: Final = "messaging.batch.message_count"
_NOTHING: Final[Mapping[int, str]] = {}
# How an attempt ends that did nothing wrong.
_WELL: Final = frozenset({"done", "beaten"})


class BatchSpan:
    """One batch's span, shared by whatever becomes of it: its attempts, hedges, halves. Owns the span.

    Life: made at the first attempt → ends with its last attempt, once the results of all its traced jobs are committed.
    """

    __slots__ = ("_jobs_left", "_last_ns", "_under_way", "span")

    def __init__(self, span: Span, jobs: int) -> None:
        self.span = span
        self._jobs_left = jobs
        self._under_way = 0
        self._last_ns: int | None = None

    def launched(self) -> None:
        self._under_way += 1

    def landed(self, at_ns: int) -> None:
        self._under_way -= 1
        self._last_ns = at_ns
        self._end_if_over()

    def job_ended(self) -> None:
        """The result of one of its traced jobs is committed."""
        self._jobs_left -= 1
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._jobs_left <= 0 and self._under_way <= 0:
            self.span.end(self._last_ns)


class BatchTraces:
    """Owns the spans of attempts under way. Does not own jobs' spans, nor who is sampled: batches without a traced job cost a
    look at their jobs.

    Life: `launched` → `head` for the actor → `landed`, for each flight.
    """

    def __init__(
        self, *, tracing: Tracing, app: str, lane: str, messaging: Mapping[str, str], epoch_ns: Callable[[float], int]
    ) -> None:
        """`messaging`: what the conventions for messaging want of a batch's span, besides its count of messages. `epoch_ns` maps
        monotonic seconds to epoch nanoseconds, as jobs' spans have them."""
        self._tracing = tracing
        self._messaging = messaging
        self._app = app
        self._lane = lane
        self._epoch_ns = epoch_ns
        self._attempts: dict[Flight, tuple[BatchSpan, Span, int]] = {}

    def launched(self, flight: Flight) -> None:
        """A batch goes to an actor; its span begins with its first attempt."""
        jobs = flight.batch.jobs
        first = next((index for index, job in enumerate(jobs) if job.span is not None), None)
        if first is None:
            return
        traced = [job.span for job in jobs[first:] if job.span is not None]
        batch = self._batch_of(flight, traced)
        if batch is None:
            return
        target = flight.target
        span = self._tracing.start(
            "rayline.attempt",
            traceparent_of(batch.span),
            start_ns=self._epoch_ns(flight.dispatched),
            batch=flight.batch.batch_id,
            jobs=len(jobs),
            attempt=flight.batch.attempts,
            cluster=target.cluster_name,
            node=target.node_name,
            hedge=flight.hedge,
        )
        if span is not None:
            batch.launched()
            self._attempts[flight] = batch, span, first

    def head(self, flight: Flight) -> Mapping[int, str]:
        """What the actor makes its own span a child of: a position in the batch, and the attempt's traceparent."""
        found = self._attempts.get(flight)
        return _NOTHING if found is None else {found[2]: traceparent_of(found[1])}

    def landed(self, flight: Flight, verdict: str, reason: str | None, now: float) -> None:
        """The attempt is over; `now` is monotonic seconds."""
        found = self._attempts.pop(flight, None)
        if found is None:
            return
        batch, span, _ = found
        span.set_attribute("rayline.verdict", verdict)
        span.set_attribute("rayline.unfinished", len(flight.unfinished))
        if verdict not in _WELL or flight.unfinished:
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR, reason or verdict)
        at_ns = self._epoch_ns(now)
        span.end(at_ns)
        batch.landed(at_ns)

    def _batch_of(self, flight: Flight, traced: list[JobSpan]) -> BatchSpan | None:
        known = _known_batch(traced)
        if known is not None:
            return known
        span = self._tracing.start(
            "rayline.batch",
            traceparent_of(traced[0].span),
            start_ns=self._epoch_ns(flight.dispatched),
            links=[one.span for one in traced],
            app=self._app,
            lane=self._lane,
            batch=flight.batch.batch_id,
            jobs=len(flight.batch.jobs),
            traced=len(traced),
            named={**self._messaging, BATCH_MESSAGES: len(flight.batch.jobs)},
        )
        if span is None:
            return None
        batch = BatchSpan(span, len(traced))
        for one in traced:
            one.batch = batch
            if one is not traced[0]:
                one.span.add_link(span.get_span_context())
        return batch


def around(flight: Flight) -> AbstractContextManager[None]:
    """What is logged meanwhile belongs to the batch of this flight, where it is traced."""
    batch = _known_batch(job.span for job in flight.batch.jobs if job.span is not None)
    return nullcontext() if batch is None else current(batch.span)


def _known_batch(spans: Iterable[JobSpan]) -> BatchSpan | None:
    """The batch that one of these jobs is in already."""
    return next((span.batch for span in spans if isinstance(span.batch, BatchSpan)), None)
