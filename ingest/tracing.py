"""A job's span in the lane: from the broker's append to the committed result, with what happened to it on the way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ingest.records import Ended
from rayline.clock import BrokerClock
from rayline.jobs import TRACEPARENT, Job
from rayline.results import Outcome
from rayline.telemetry import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


def start_job_span(tracing: Tracing, job: Job, *, app: str, lane: str) -> Span | None:
    """The job's span, where its producer sampled it; it begins when the broker took the job."""
    traceparent = job.header(TRACEPARENT)
    if traceparent is None:
        return None
    return tracing.start(
        "rayline.job",
        traceparent,
        start_ns=job.timestamp_ms * 1_000_000,
        app=app,
        lane=lane,
        job_id=job.job_id,
        source=job.source,
    )


def end_job_span(span: Span, ended: Ended, clock: BrokerClock) -> None:
    """The result is committed."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("rayline.outcome", ended.outcome.value)
    span.set_attribute("rayline.attempts", ended.attempts)
    journey = ended.journey
    if journey is not None:
        span.set_attribute("rayline.cluster", journey.cluster)
        span.set_attribute("rayline.node", journey.node)
        span.set_attribute("rayline.batch", journey.batch_id)
        span.set_attribute("rayline.batch_size", journey.size)
        span.add_event("dispatched", timestamp=int(clock.at(journey.dispatched) * 1e6))
        span.add_event("answered", timestamp=int(clock.at(journey.answered) * 1e6))
    if ended.outcome is not Outcome.OK:
        span.set_status(StatusCode.ERROR, f"{ended.error_type}: {ended.error_message}")
    span.end(int(clock.at(time.monotonic()) * 1e6))
