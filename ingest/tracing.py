"""Spans of a lane: a job's from the broker's append to the committed result, and those of the batches that it goes out in."""

from __future__ import annotations

import time
from typing import Final

from ingest.records import Ended
from rayline.clock import BrokerClock
from rayline.jobs import TRACEPARENT, Job
from rayline.logs import redact
from rayline.metrics.declared import DESTINATION, GROUP, OPERATION, PARTITION, SYSTEM
from rayline.results import Outcome
from rayline.telemetry import JobSpan, Tracing
from rayline.topics import group_id, requests_topic
from scheduler.tracing import BatchTraces

# OpenTelemetry's own names of attributes, as far as only spans have them.
OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGE_ID: Final = "messaging.message.id"
OFFSET: Final = "messaging.kafka.offset"


def start_job_span(tracing: Tracing, job: Job, *, app: str, lane: str) -> JobSpan | None:
    """The job's span, where its producer sampled it; it begins when the broker took the job."""
    traceparent = job.header(TRACEPARENT)
    if traceparent is None or not tracing.may_take(traceparent):
        return None
    span = tracing.start(
        "rayline.job",
        traceparent,
        start_ns=job.timestamp_ms * 1_000_000,
        app=app,
        lane=lane,
        job_id=job.job_id,
        source=job.source,
        named={**_processing(app), PARTITION: str(job.partition), OFFSET: job.offset, MESSAGE_ID: job.job_id},
    )
    return None if span is None else JobSpan(span)


def end_job_span(job_span: JobSpan, ended: Ended, clock: BrokerClock) -> None:
    """The result is committed."""
    from opentelemetry.trace import StatusCode

    span = job_span.span
    span.set_attribute("rayline.outcome", ended.outcome.value)
    span.set_attribute("rayline.attempts", ended.trail.attempts)
    journey = ended.journey
    sent = ended.trail.last if journey is None else journey.sent
    if sent is not None:
        span.set_attribute("rayline.cluster", sent.cluster)
        span.set_attribute("rayline.node", sent.node)
        span.set_attribute("rayline.batch", sent.batch_id)
        span.set_attribute("rayline.batch_size", sent.size)
    if journey is not None:
        span.add_event("dispatched", timestamp=int(clock.at(journey.dispatched) * 1e6))
        span.add_event("answered", timestamp=int(clock.at(journey.answered) * 1e6))
    if ended.outcome is not Outcome.OK:
        span.set_status(StatusCode.ERROR, redact(f"{ended.error_type}: {ended.error_message}"))
    span.end(int(clock.at(time.monotonic()) * 1e6))
    if job_span.batch is not None:
        job_span.batch.job_ended()


def batch_traces(tracing: Tracing | None, clock: BrokerClock, *, app: str, lane: str) -> BatchTraces | None:
    """Spans of a lane's batches and attempts, in the broker's time as its jobs'; None where nothing is traced."""
    if tracing is None:
        return None
    return BatchTraces(
        tracing=tracing, app=app, lane=lane, messaging=_processing(app), epoch_ns=lambda at: int(clock.at(at) * 1e6)
    )


def _processing(app: str) -> dict[str, str]:
    """What the conventions for messaging want of every span that works on an app's jobs."""
    return {
        SYSTEM: "kafka",
        OPERATION: "process",
        OPERATION_TYPE: "process",
        DESTINATION: requests_topic(app),
        GROUP: group_id(app),
    }
