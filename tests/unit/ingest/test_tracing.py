"""A job's span: named by the conventions for messaging, ended with what came of the job, without secrets."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ingest.records import Ended
from ingest.tracing import end_job_span, start_job_span
from rayline.clock import BrokerClock
from rayline.results import Outcome
from rayline.telemetry import Tracing
from rayline.topics import group_id
from scheduler.batch import Trail
from tests.unit.ingest.jobs import job

SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def span_of(
    traceparent: bytes | None, outcome: Outcome = Outcome.OK, error: tuple[str, str] | None = None
) -> ReadableSpan | None:
    """What a job leaves behind: by default it ends well."""
    exporter = InMemorySpanExporter()
    headers = () if traceparent is None else (("traceparent", traceparent),)
    one = job(7, partition=3, given_id="j1", headers=headers)
    found = start_job_span(Tracing(SimpleSpanProcessor(exporter)), one, app="app", lane="0")
    if found is None:
        return None
    kind, message = error or (None, None)
    end_job_span(found, Ended(one, outcome, None, kind, message, Trail(), 0.0), BrokerClock())
    (span,) = exporter.get_finished_spans()
    return span


def test_it_speaks_the_conventions_for_messaging() -> None:
    span = span_of(SAMPLED)
    assert span is not None
    assert {name: value for name, value in (span.attributes or {}).items() if name.startswith("messaging.")} == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "app.requests",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
        "messaging.consumer.group.name": group_id("app"),
        "messaging.message.id": "j1",
    }
    assert span.status.status_code is StatusCode.UNSET


def test_it_tells_why_a_job_failed_without_the_secrets_in_it() -> None:
    span = span_of(SAMPLED, Outcome.ERROR, ("ValueError", "no access with token=hunter2"))
    assert span is not None
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError: no access with token=***"


@pytest.mark.parametrize("traceparent", [None, SAMPLED[:-1] + b"0", b"nonsense"])
def test_nobody_sampled_it_and_it_leaves_no_span(traceparent: bytes | None) -> None:
    assert span_of(traceparent) is None
