"""What is processed in several stages, one app's result being the next one's job, stands in one trace."""

from __future__ import annotations

from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ingest.admission import Admission
from ingest.records import Ended, journey_headers, result_headers
from ingest.tracing import batch_traces, end_job_span, start_job_span
from rayline.app_spec import AppSpec
from rayline.bus.record_batch import RecordBatchWriter, read_batch
from rayline.clock import BrokerClock
from rayline.jobs import ContentType, Header, Job
from rayline.reports import ActorEndpoint
from rayline.results import Outcome, Result, parse_result
from rayline.telemetry import Tracing
from rayline.topics import requests_topic
from rayline.wire import BatchHead, Verdict
from scheduler.batch import Batch, Sent, Trail
from scheduler.flights import Flight, Journey
from scheduler.seats import Target
from tests.unit.ingest.jobs import Record
from workers.execution import execution

APPS = ("detect", "recognise", "read")
PRODUCER = f"00-{'1a' * 16}-{'2b' * 8}-01"


@dataclass
class Stage:
    """One app: a lane and an actor of it, each with the spans of its own process."""

    app: str
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.lane, self.worker = self._tracing(), self._tracing()
        self.clock = BrokerClock()

    def _tracing(self) -> Tracing:
        return Tracing(SimpleSpanProcessor(self.exporter))

    def process(self, value: bytes, headers: list[Header]) -> Result:
        """A record of its requests becomes one of its results, by the lane's own steps."""
        admission = Admission(spec=AppSpec(self.app, "1", "/", "m:f"), clock=self.clock)
        job = admission.admit(requests_topic(self.app), 0, Record(value, list(headers)), 1.0)  # type: ignore[arg-type]
        assert isinstance(job, Job)
        job.span = start_job_span(self.lane, job, app=self.app, lane="0")
        traces = batch_traces(self.lane, self.clock, app=self.app, lane="0")
        assert traces is not None
        flight = self._flight(job)
        traces.launched(flight)
        head = BatchHead(flight.batch.batch_id, ContentType.MSGPACK, 1_000, traces.head(flight))
        with execution(self.worker, BatchHead.unpack(head.pack()), app=self.app) as note:
            note(Verdict.DONE)
        flight.unfinished.clear()
        traces.landed(flight, "done", None, 2.0)
        sent = Sent("c", "n", "1", flight.batch.batch_id, 1)
        journey = Journey(sent, Trail().sent_to(sent), None, dispatched=1.0, answered=2.0, execute_ms=1.0)
        ended = Ended(job, Outcome.OK, value, None, None, journey.trail, 2.0, journey)
        encoded = result_headers(
            ended, journey_headers(journey, now=2.0), place=f"{job.topic}/0/".encode(), appended_ms=1.0, arrived_ms=2.0
        )
        if job.span is not None:
            end_job_span(job.span, ended, self.clock)
        writer = RecordBatchWriter()
        writer.append(key=None, value=value, headers=encoded)
        (record,) = read_batch(writer.build(-1, -1, -1))
        read = [(name, raw or b"") for name, raw in record.headers]
        return parse_result(key=None, value=value, headers=read, timestamp_ms=3)

    def _flight(self, job: Job) -> Flight:
        endpoint = ActorEndpoint(self.app, "1", "a", "127.0.0.1", 1, 2, "i")
        target = Target("c/n", 1, endpoint)
        return Flight(Batch(f"{self.app}-1", ContentType.MSGPACK, [job], 1), target, 1.0, {0: job}, [])

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def chain(traceparent: str, stages: list[Stage]) -> Result:
    """The result of the last stage; each takes the headers of the result before it as they are."""
    headers: list[Header] = [("job-id", b"page-7"), ("traceparent", traceparent.encode()), ("tenant", b"t1")]
    for stage in stages:
        result = stage.process(b"x", headers)
        headers = [(name, raw) for name, raw in result.headers if raw is not None]
    return result


def test_three_stages_stand_in_one_trace_each_under_the_job_before_it() -> None:
    stages = [Stage(app) for app in APPS]
    result = chain(PRODUCER, stages)
    parent = int("2b" * 8, 16)
    for stage in stages:
        spans = stage.spans()
        assert spans.keys() == {"rayline.job", "rayline.batch", "rayline.attempt", "rayline.execute"}
        assert {span.context.trace_id for span in spans.values()} == {int("1a" * 16, 16)}
        for name in ("rayline.job", "rayline.batch", "rayline.attempt", "rayline.execute"):
            found = spans[name].parent
            assert found is not None
            assert found.span_id == parent, f"{name} of {stage.app}"
            parent = spans[name].context.span_id
        parent = spans["rayline.job"].context.span_id
    assert (result.trace_id, result.job_id, result.source) == ("1a" * 16, "page-7", "read.requests/0/42")
    assert dict(result.headers)["traceparent"] == f"00-{'1a' * 16}-{parent:016x}-01".encode()


def test_a_stage_that_traces_nothing_passes_the_trace_on() -> None:
    stages = [Stage(app) for app in APPS]
    stages[1].lane.set_sampling(0.0)
    chain(PRODUCER, stages)
    first, second, third = (stage.spans() for stage in stages)
    assert second == {}
    found = third["rayline.job"].parent
    assert found is not None
    assert found.span_id == first["rayline.job"].context.span_id


def test_what_the_producer_did_not_sample_leaves_no_span_in_any_stage_and_keeps_its_context() -> None:
    stages = [Stage(app) for app in APPS]
    unsampled = PRODUCER[:-1] + "0"
    assert dict(chain(unsampled, stages).headers)["traceparent"] == unsampled.encode()
    assert [stage.spans() for stage in stages] == [{}, {}, {}]
