"""Result and dead-letter records from ended jobs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rayline import results
from rayline.jobs import CONTENT_TYPE, DEADLINE_MS, JOB_ID, TRACEPARENT, ContentType, Header, Job
from rayline.results import Outcome
from rayline.telemetry import traceparent_of
from scheduler.dispatcher import Journey

_NOT_PASSED_ON: Final = results.RESULT_HEADERS | {DEADLINE_MS, CONTENT_TYPE}
_OUTCOMES: Final = {outcome: (results.OUTCOME, outcome.value.encode()) for outcome in Outcome}
_JSON: Final = (CONTENT_TYPE, ContentType.JSON.value.encode())


@dataclass(slots=True, eq=False)
class Ended:
    """A job that ended and waits to be published. `value` is the encoded feature of an `ok` one.

    `dead_letter` is the reason where the job also goes to the dead-letter topic; `tombstone` says that its record had no value
    at all. `at` is monotonic seconds. What the broker refuses for its size goes without the payload in the dead letter
    (`letter_whole` False), then without the job's key and headers (`bare`).
    """

    job: Job
    outcome: Outcome
    value: bytes | None
    error_type: str | None
    error_message: str | None
    attempts: int
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


def journey_headers(journey: Journey) -> tuple[Header, ...]:
    """The headers that all jobs of one answer share."""
    headers = [
        (results.APP_VERSION, journey.app_version.encode()),
        (results.CLUSTER, journey.cluster.encode()),
        (results.NODE, journey.node.encode()),
        (results.ATTEMPTS, b"%d" % journey.attempts),
        (results.BATCH, b"%s/%d" % (journey.batch_id.encode(), journey.size)),
    ]
    if journey.pick is not None:
        headers.append((results.PICK, journey.pick))
    if journey.model_version is not None:
        headers.append((results.MODEL_VERSION, journey.model_version.encode()))
    return tuple(headers)


def result_headers(
    ended: Ended, shared: tuple[Header, ...] | None, *, appended_ms: float, arrived_ms: float, now: float
) -> list[Header]:
    """All headers of a result.

    `shared` comes from `journey_headers`; `appended_ms` is when the broker took the job, `arrived_ms` the broker's time at
    which the lane read it; `now` is monotonic seconds.
    """
    job, journey = ended.job, ended.journey
    headers: list[Header] = [
        (JOB_ID, job.job_id.encode()),
        _OUTCOMES[ended.outcome],
        (results.SOURCE, job.source.encode()),
    ]
    if shared is not None and journey is not None:
        headers.extend(shared)
        dispatch_ms = (journey.answered - journey.dispatched) * 1000 - journey.execute_ms
        timing = results.format_timing(
            queue_ms=max(0.0, arrived_ms - appended_ms) + (journey.dispatched - job.arrived) * 1000,
            dispatch_ms=max(0.0, dispatch_ms),
            execute_ms=journey.execute_ms,
            publish_ms=(now - journey.answered) * 1000,
        )
    else:
        headers.append((results.ATTEMPTS, b"%d" % ended.attempts))
        timing = results.format_timing(
            queue_ms=max(0.0, arrived_ms - appended_ms) + (ended.at - job.arrived) * 1000,
            dispatch_ms=0.0,
            execute_ms=0.0,
            publish_ms=(now - ended.at) * 1000,
        )
    headers.append((results.TIMING, timing))
    if ended.error_type is not None:
        headers.append((results.ERROR_TYPE, ended.error_type[: results.MAX_ERROR_TYPE_CHARS].encode("utf-8", "replace")))
        message = (ended.error_message or "")[: results.MAX_ERROR_MESSAGE_CHARS]
        headers.append((results.ERROR_MESSAGE, message.encode("utf-8", "replace")))
    if job.content_type is ContentType.JSON:
        headers.append(_JSON)
    if job.headers and not ended.bare:
        not_passed_on = _NOT_PASSED_ON
        if job.span is not None:
            headers.append((TRACEPARENT, traceparent_of(job.span).encode()))
            not_passed_on = _NOT_PASSED_ON | {TRACEPARENT}
        headers.extend(header for header in job.headers if header[0] not in not_passed_on)
    return headers


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
