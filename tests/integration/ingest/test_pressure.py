"""What is slow or late around a lane: a transaction past its timeout, a reader of results that stands still, a burst of jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import msgpack
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Message, Producer

from ingest.lane import Lane
from ingest.publisher import ResultPublisher
from rayline.app_spec import Limits
from rayline.bus import GroupConsumer, KafkaSettings, Phase, TopicPartition, TransactionalProducer
from rayline.topics import requests_topic, results_topic
from rayline.wire import AnswerHead, BatchHead
from tests.integration.ingest.lanes import (
    PARTITIONS,
    EchoChannel,
    assert_exactly_once,
    new_app,
    running,
    spec_of,
    submit,
    until,
    verdict,
)
from workers.channel import OnChunk

pytestmark = pytest.mark.integration

TRANSACTION_SECONDS = 2.0


async def test_a_transaction_past_its_timeout_is_aborted_and_done_again_once(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new_producer(publisher: ResultPublisher) -> TransactionalProducer:
        return TransactionalProducer(
            settings=kafka,
            transactional_id=publisher._transactional_id,
            transaction_timeout_ms=int(TRANSACTION_SECONDS * 1000),
        )

    monkeypatch.setattr(ResultPublisher, "_new_producer", new_producer)
    app, jobs = await new_app(kafka), 2_000
    late: list[Phase] = []
    seen = 0

    def on_phase(reached: Phase) -> None:
        """The third transaction, with results and offsets at the broker, stands still until the broker has given it up."""
        nonlocal seen
        seen += reached is Phase.OFFSETS_SENT
        if seen == 3 and not late:
            late.append(reached)
            time.sleep(TRANSACTION_SECONDS + 1.5)  # the process stands still, not one task of it

    lane = Lane(
        settings=kafka, spec=spec_of(app), instance="0", channels=EchoChannel, result_partitions=PARTITIONS, on_phase=on_phase
    )
    async with running(lane, app):
        for first in range(0, jobs, 500):
            await asyncio.to_thread(submit, kafka, app, 500, first=first)
        report = await verdict(kafka, app, jobs)
        recoveries = lane._publisher.statistics.recoveries
    assert late == [Phase.OFFSETS_SENT]
    assert recoveries >= 1
    assert_exactly_once(report, jobs)
    assert report.outcomes == {"ok": jobs}


async def test_a_reader_of_results_that_stands_still_holds_nobody_up_and_misses_nothing(kafka: KafkaSettings) -> None:
    app, jobs = await new_app(kafka), 3_000
    slow = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"{app}-slow",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            # What it was sent and did not ask for stays small: the rest waits at the broker.
            "queued.max.messages.kbytes": 1,
            "fetch.message.max.bytes": 20_000,
        }
    )
    slow.subscribe([results_topic(app)])
    lane = Lane(settings=kafka, spec=spec_of(app), instance="0", channels=EchoChannel, result_partitions=PARTITIONS)
    try:
        async with running(lane, app):
            submit(kafka, app, 1)
            read = await asyncio.to_thread(_read, slow, 1)
            submit(kafka, app, jobs - 1, first=1)
            # It has read one and asks for no more, while all others come to their end.
            await until(lambda: sum(lane.statistics().results.values()) == jobs, what="every job ends")
            statistics = lane.statistics()
            assert (statistics.jobs_held, statistics.bytes_held) == (0, 0)
        assert_exactly_once(await verdict(kafka, app, jobs), jobs)
        read += await asyncio.to_thread(_read, slow, jobs - 1)
    finally:
        await asyncio.to_thread(slow.close)
    assert len({dict(message.headers() or [])["source"] for message in read}) == jobs


def _read(consumer: Consumer, count: int) -> list[Message]:
    deadline = time.monotonic() + 30
    found: list[Message] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} results within 30 s"
        found += consumer.consume(count - len(found), timeout=0.2)
    assert not [message.error() for message in found if message.error() is not None]
    return found


class SlowChannel(EchoChannel):
    """An actor that takes 10 ms for each job of a batch."""

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        await asyncio.sleep(0.01 * batch.num_rows)
        return await super().exchange(batch, head, timeout_seconds=timeout_seconds, on_chunk=on_chunk)


async def test_a_burst_pauses_partitions_and_what_expires_meanwhile_ends_as_deadline_exceeded(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two actors with four places end 800 jobs a second, 1,600 within the SLA: ten times as many come at once."""
    app, sla_seconds, usual, burst, limit = await new_app(kafka), 2.0, 200, 16_000, 1_000_000
    paused: set[TopicPartition] = set()
    pause = GroupConsumer.pause

    def seen(consumer: GroupConsumer, partitions: Iterable[TopicPartition]) -> None:
        partitions = list(partitions)
        paused.update(partitions)
        pause(consumer, partitions)

    monkeypatch.setattr(GroupConsumer, "pause", seen)
    spec = spec_of(app, sla_seconds=sla_seconds, limits=Limits(max_in_flight_bytes=limit))
    lane = Lane(settings=kafka, spec=spec, instance="0", channels=SlowChannel, result_partitions=PARTITIONS)
    most = 0

    def ended(jobs: int) -> bool:
        nonlocal most
        most = max(most, lane.statistics().bytes_held)
        return sum(lane.statistics().results.values()) >= jobs

    async with running(lane, app):
        _produce(kafka, app, usual)
        await until(lambda: ended(usual), what="the usual load ends")
        assert not paused
        await asyncio.to_thread(_produce, kafka, app, burst)
        await until(lambda: ended(usual + burst), seconds=60, what="the burst ends")
        assert {tp.partition for tp in paused} == set(range(PARTITIONS))
        in_time = lane.statistics().results["ok"]
        _produce(kafka, app, usual)
        await until(lambda: ended(usual + burst + usual), what="the usual load ends again")
        results = lane.statistics().results
    # An overload does not outlive its cause.
    assert results["ok"] - in_time == usual
    assert in_time > usual
    assert results["deadline_exceeded"] > burst // 2
    # One poll may overshoot, and what is held may hold its result, too, which is as large.
    assert most <= 2 * (limit + 1_000 * 1_100)
    report = await verdict(kafka, app, burst + 2 * usual)
    assert_exactly_once(report, burst + 2 * usual)
    assert report.outcomes == results


def _produce(kafka: KafkaSettings, app: str, jobs: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "queue.buffering.max.messages": 100_000})
    payload = msgpack.packb(bytes(1_000))
    for number in range(jobs):
        producer.produce(requests_topic(app), value=payload, partition=number % PARTITIONS)
    assert producer.flush(30) == 0
