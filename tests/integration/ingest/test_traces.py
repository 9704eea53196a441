"""The spans that a job leaves behind: its own, its batch's, one for each attempt; nothing for jobs that nobody sampled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ingest.lane import Lane
from rayline.app_spec import Batching
from rayline.bus import KafkaSettings
from rayline.jobs import TRACEPARENT
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.telemetry import Tracing
from rayline.topics import requests_topic, results_topic
from rayline.wire import AnswerHead, BatchHead, Verdict
from scheduler.channels import ChannelFactory
from tests.integration.ingest.lanes import EchoChannel, new_app, running, spec_of, until
from tests.support.foreign import Seen, read_committed
from workers.channel import OnChunk

pytestmark = pytest.mark.integration


class Evicting:
    """Actors of which the first that is asked leaves; the heads of all batches are kept."""

    def __init__(self) -> None:
        self.heads: list[BatchHead] = []

    def __call__(self, endpoint: ActorEndpoint) -> EchoChannel:
        heads = self.heads

        class Channel(EchoChannel):
            async def exchange(
                self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk
            ) -> AnswerHead:
                heads.append(head)
                if len(heads) == 1:
                    return AnswerHead(head.batch, True, Verdict.DRAINING)
                return await super().exchange(batch, head, timeout_seconds=timeout_seconds, on_chunk=on_chunk)

        return Channel(endpoint)


@asynccontextmanager
async def traced(kafka: KafkaSettings, channels: ChannelFactory) -> AsyncIterator[tuple[str, InMemorySpanExporter, Tracing]]:
    """A lane at work, and the spans that it ends."""
    exporter = InMemorySpanExporter()
    app, tracing = await new_app(kafka, partitions=1), Tracing(SimpleSpanProcessor(exporter))
    # Jobs that are written together are one batch.
    spec = spec_of(app, partitions=1, batching=Batching(max_jobs=64, linger_ms=200.0))
    lane = Lane(
        settings=kafka,
        spec=spec,
        instance=f"{app}-0",
        channels=channels,
        result_partitions=1,
        tracing=tracing,
        session_timeout_ms=30_000,
    )
    async with running(lane, app, beats=False):
        beating = asyncio.create_task(_beat(lane, app))
        yield app, exporter, tracing
        beating.cancel()
    tracing.close()


async def _beat(lane: Lane, app: str) -> None:
    """Two nodes: whom one hands a batch back, the other takes it."""
    for seq in itertools.count(1):
        for node in ("n1", "n2"):
            actor = ActorEndpoint(app, "1", "a", "127.0.0.1", 1, EchoChannel.slots, f"{app}-{node}")
            lane.heard([NodeReport("c", node, 1, seq, NodeState.READY, 1.0, actors=(actor,))])
        await asyncio.sleep(0.5)


def produce(kafka: KafkaSettings, app: str, traceparents: list[str | None]) -> None:
    """One job for each; None: without the header."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20})
    for number, traceparent in enumerate(traceparents):
        headers = [] if traceparent is None else [(TRACEPARENT, traceparent.encode())]
        producer.produce(requests_topic(app), msgpack.packb(number), partition=0, headers=headers)
    assert producer.flush(20) == 0


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_one_trace_holds_job_batch_and_each_attempt_and_links_the_other_jobs(kafka: KafkaSettings) -> None:
    actors = Evicting()
    first, second = f"00-{'1a' * 16}-{'2b' * 8}-01", f"00-{'3c' * 16}-{'4d' * 8}-01"
    async with traced(kafka, actors) as (app, exporter, _):
        produce(kafka, app, [None, first, second, f"00-{'5e' * 16}-{'6f' * 8}-00"])
        await until(lambda: len(named(exporter, "rayline.batch")) == 1, what="the batch is over")
    jobs = {f"{span.context.trace_id:032x}": span for span in named(exporter, "rayline.job")}
    assert jobs.keys() == {"1a" * 16, "3c" * 16}
    job, other = jobs["1a" * 16], jobs["3c" * 16]
    (batch,) = named(exporter, "rayline.batch")
    assert parent_of(batch) == job.context.span_id
    assert {link.context.span_id for link in batch.links} == {job.context.span_id, other.context.span_id}
    assert [link.context.span_id for link in other.links] == [batch.context.span_id]
    assert batch.attributes is not None
    assert (batch.attributes["rayline.jobs"], batch.attributes["rayline.traced"]) == (4, 2)
    assert batch.attributes["messaging.batch.message_count"] == 4
    assert batch.attributes["messaging.destination.name"] == requests_topic(app)
    attempts = named(exporter, "rayline.attempt")
    assert {parent_of(span) for span in attempts} == {batch.context.span_id}
    attributes = [dict(span.attributes or {}) for span in attempts]
    assert {one.pop("rayline.node") for one in attributes} == {"n1", "n2"}
    assert attributes == [
        {
            "rayline.batch": actors.heads[number].batch,
            "rayline.jobs": 4,
            "rayline.attempt": number + 1,
            "rayline.cluster": "c",
            "rayline.hedge": False,
            "rayline.verdict": verdict,
            "rayline.unfinished": unfinished,
        }
        for number, verdict, unfinished in ((0, "draining", 4), (1, "done", 0))
    ]
    # The actor's own span is a child of the attempt.
    told = [next(iter(head.trace.values())).split("-") for head in actors.heads]
    assert [(trace, int(span, 16)) for _, trace, span, _ in told] == [
        ("1a" * 16, attempt.context.span_id) for attempt in attempts
    ]
    for span in (batch, *attempts):
        assert span.start_time is not None
        assert job.start_time is not None
        assert job.start_time <= span.start_time <= (span.end_time or 0) <= (job.end_time or 0)


async def test_results_that_become_jobs_again_with_their_headers_stand_in_the_trace_of_the_first(kafka: KafkaSettings) -> None:
    first = f"00-{'1a' * 16}-{'2b' * 8}-01"
    async with traced(kafka, EchoChannel) as (app, exporter, _):
        produce(kafka, app, [first])
        for stage in (1, 2, 3):
            await until(lambda ended=stage: len(named(exporter, "rayline.job")) == ended, what=f"stage {stage} has ended")
            if stage < 3:
                results: list[Seen] = []
                while len(results) < stage:
                    results = await asyncio.to_thread(read_committed, kafka, results_topic(app))
                relay(kafka, app, results[-1])
        await until(lambda: len(named(exporter, "rayline.batch")) == 3, what="the batches are over")
    jobs = sorted(named(exporter, "rayline.job"), key=lambda span: span.start_time or 0)
    assert {span.context.trace_id for span in exporter.get_finished_spans()} == {int("1a" * 16, 16)}
    assert [parent_of(job) for job in jobs] == [int("2b" * 8, 16), *(job.context.span_id for job in jobs[:-1])]
    assert sorted(map(parent_of, named(exporter, "rayline.batch"))) == sorted(job.context.span_id for job in jobs)


def relay(kafka: KafkaSettings, app: str, result: Seen) -> None:
    """As any client would: value, key and all headers."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(requests_topic(app), result.value, result.key, partition=0, headers=list(result.headers))
    assert producer.flush(20) == 0


async def test_what_nobody_sampled_leaves_no_span_and_nothing_for_the_actor(kafka: KafkaSettings) -> None:
    actors = Evicting()
    async with traced(kafka, actors) as (app, exporter, tracing):
        tracing.set_sampling(0.0)
        produce(kafka, app, [None, f"00-{'1a' * 16}-{'2b' * 8}-00", f"00-{'3c' * 16}-{'4d' * 8}-01"])

        def published() -> bool:
            return len(read_committed(kafka, results_topic(app))) == 3

        while not await asyncio.to_thread(published):
            pass
        assert exporter.get_finished_spans() == ()
    assert [head.trace for head in actors.heads] == [{}, {}]
