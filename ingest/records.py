"""Result and dead-letter records from ended jobs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rayline import results
from rayline.bus.record_batch import encode_header, header_name, varint
from rayline.jobs import CONTENT_TYPE, DEADLINE_MS, JOB_ID, TRACEPARENT, ContentType, Header, Job
from rayline.results import Outcome, Tried
from rayline.telemetry import traceparent_of
from scheduler.batch import Sent, Trail
from scheduler.dispatcher import Journey

_NOT_PASSED_ON: Final = results.RESULT_HEADERS | {DEADLINE_MS, CONTENT_TYPE}
_RUNNING: Final = "running"
_JSON: Final = encode_header(CONTENT_TYPE, ContentType.JSON.value.encode())
_JOB_ID: Final = header_name(JOB_ID)
_TIMING: Final = header_name(results.TIMING)
# The outcome, and the name of the header behind it.
_OUTCOMES: Final = {
    outcome: encode_header(results.OUTCOME, outcome.value.encode()) + header_name(results.SOURCE) for outcome in Outcome
}


@dataclass(slots=True, eq=False)
class Ended:
    """A job that ended and waits to be published. `value` is the encoded feature of an `ok` one. `journey` is that of its answer;
    without one, `trail` tells where it was sent.

    `dead_letter` is the reason where the job also goes to the dead-letter topic; `tombstone` says that its record had no value
    at all. `at` is monotonic seconds. What the broker refuses for its size goes without the payload in the dead letter
    (`letter_whole` False), then without the job's key and headers (`bare`).
    """

    job: Job
    outcome: Outcome
    value: bytes | None
    error_type: str | None
    error_message: str | None
    trail: Trail
    at: float
    journey: Journey | None = None
    dead_letter: str | None = None
    tombstone: bool = False
    letter_whole: bool = True
    bare: bool = False

    @property
    def held_bytes(self) -> int:
        return self.job.held_bytes + (len(self.value) if self.value is not None else 0)


def job_bytes(job: Job) -> int:
    """What a job holds in memory: payload, key and headers."""
    size = len(job.payload) + (len(job.key) if job.key is not None else 0)
    for name, raw in job.headers:
        size += len(name) + (len(raw) if raw is not None else 0)
    return size


@dataclass(frozen=True, slots=True)
class SharedHeaders:
    """What the results of one answer have in common.

    `count` headers in each (with the four that are its own: id, outcome, source, timing), the `encoded` ones up to the name
    of the timing, all of the `timing` but the queue, which ended at `left` (monotonic seconds).
    """

    count: int
    encoded: bytes
    timing: bytes
    left: float


def journey_headers(journey: Journey, *, now: float) -> SharedHeaders:
    """Of an answer that is published at `now` (monotonic seconds)."""
    headers = _trail_headers(journey.trail, journey.sent, answered=True)
    if journey.model_version is not None:
        headers.append((results.MODEL_VERSION, journey.model_version.encode()))
    dispatch_ms = (journey.answered - journey.dispatched) * 1000 - journey.execute_ms
    timing = results.format_timing_after_queue(
        dispatch_ms=max(0.0, dispatch_ms), execute_ms=journey.execute_ms, publish_ms=(now - journey.answered) * 1000
    )
    return _shared(headers, timing, journey.dispatched)


def lone_headers(ended: Ended, *, now: float) -> SharedHeaders:
    """Of a job that no actor answered, published at `now` (monotonic seconds): all its time before its end counts as queue."""
    timing = results.format_timing_after_queue(dispatch_ms=0.0, execute_ms=0.0, publish_ms=(now - ended.at) * 1000)
    return _shared(_trail_headers(ended.trail, ended.trail.last, answered=False), timing, ended.at)


def _trail_headers(trail: Trail, last: Sent | None, *, answered: bool) -> list[Header]:
    """How often, and where last; then the attempts that brought no answer."""
    headers: list[Header] = [(results.ATTEMPTS, b"%d" % trail.attempts)]
    if last is not None:
        headers += (
            (results.APP_VERSION, last.app_version.encode()),
            (results.CLUSTER, last.cluster.encode()),
            (results.NODE, last.node.encode()),
            (results.BATCH, b"%s/%d" % (last.batch_id.encode(), last.size)),
        )
        if last.pick is not None:
            headers.append((results.PICK, last.pick))
    # The usual result has none.
    if trail.attempts > (1 if answered else 0):
        tried = [
            Tried(one.sent.cluster, one.sent.node, one.cause or _RUNNING, one.sent.batch_id)
            for one in trail.tried
            if not (answered and one.sent is last)
        ]
        if tried:
            headers.append((results.TRIED, results.format_tried(tried)))
    return headers


def _shared(headers: list[Header], timing: bytes, left: float) -> SharedHeaders:
    encoded = b"".join([encode_header(*header) for header in headers])
    return SharedHeaders(len(headers) + 4, encoded + _TIMING, timing, left)


def result_headers(ended: Ended, shared: SharedHeaders, *, place: bytes, appended_ms: float, arrived_ms: float) -> bytes:
    """All headers of a result, encoded.

    `place` is `<topic>/<partition>/` of the job; `appended_ms` is when the broker took it, `arrived_ms` the broker's time at
    which the lane read it.
    """
    job = ended.job
    # The usual result has none.
    own = _own_headers(ended) if ended.error_type is not None or job.headers or job.content_type is ContentType.JSON else ()
    ident = job.given_id.encode() if job.given_id is not None else b"%d-%d" % (job.partition, job.offset)
    source = b"%b%d" % (place, job.offset)
    queue_ms = arrived_ms - appended_ms
    timing = b"queue=%.1f%b" % ((queue_ms if queue_ms > 0.0 else 0.0) + (shared.left - job.arrived) * 1000, shared.timing)
    return b"".join(
        (
            varint(shared.count + len(own)),
            _JOB_ID,
            varint(len(ident)),
            ident,
            _OUTCOMES[ended.outcome],
            varint(len(source)),
            source,
            shared.encoded,
            varint(len(timing)),
            timing,
            *own,
        )
    )


def _own_headers(ended: Ended) -> list[bytes]:
    """What a result tells besides: its error, its encoding, and what its job brought along."""
    job = ended.job
    own: list[bytes] = []
    if ended.error_type is not None:
        error_type = ended.error_type[: results.MAX_ERROR_TYPE_CHARS].encode("utf-8", "replace")
        message = (ended.error_message or "")[: results.MAX_ERROR_MESSAGE_CHARS].encode("utf-8", "replace")
        own += (encode_header(results.ERROR_TYPE, error_type), encode_header(results.ERROR_MESSAGE, message))
    if job.content_type is ContentType.JSON:
        own.append(_JSON)
    if job.headers and not ended.bare:
        not_passed_on = _NOT_PASSED_ON
        if job.span is not None:
            own.append(encode_header(TRACEPARENT, traceparent_of(job.span.span).encode()))
            not_passed_on = _NOT_PASSED_ON | {TRACEPARENT}
        own += [encode_header(*header) for header in job.headers if header[0] not in not_passed_on]
    return own


def dead_letter_headers(ended: Ended, *, time_ms: int) -> list[Header]:
    """The job's own headers, then why it lies there."""
    job = ended.job
    reason = f"{ended.dead_letter}: {ended.error_message}"
    if not ended.letter_whole:
        reason = f"(too large to be kept here: read it from its source) {reason}"
    return [
        *(header for header in (() if ended.bare else job.headers) if header[0] not in results.DLQ_HEADERS),
        (results.DLQ_REASON, reason[: results.MAX_ERROR_MESSAGE_CHARS].encode("utf-8", "replace")),
        (results.DLQ_SOURCE, job.source.encode()),
        (results.DLQ_TIME, b"%d" % time_ms),
    ]
