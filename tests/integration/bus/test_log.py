"""Compacted logs, the publisher and topic administration against a real broker."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka import Producer

from rayline.bus import CompactedLog, KafkaSettings, LogRecord, Publisher, check_reachable, describe, ensure_topics
from rayline.errors import BrokerUnavailable, BusError, RecordTooLarge
from rayline.topics import TopicSpec, platform_topics
from tests.support.names import fresh

pytestmark = pytest.mark.integration


async def until_caught_up(log: CompactedLog) -> list[LogRecord]:
    records: list[LogRecord] = []
    async with asyncio.timeout(20):
        while not log.caught_up.is_set():
            records += await log.getmany(timeout_ms=200)
    return records


async def test_a_reader_has_caught_up_with_what_stood_there_at_its_start(kafka: KafkaSettings) -> None:
    topic = fresh("log")
    await ensure_topics(kafka, [TopicSpec(topic, 2, {"cleanup.policy": "compact"})])
    async with CompactedLog(settings=kafka, topic=topic) as empty:
        assert empty.caught_up.is_set()
    async with Publisher(settings=kafka) as publisher:
        for number in range(4):
            await publisher.publish(topic, key=b"k%d" % number, value=b"v", headers=[("h", b"x")], partition=number % 2)
        await publisher.publish(topic, key=b"k0", value=None, partition=0)
        async with CompactedLog(settings=kafka, topic=topic) as log:
            assert not log.caught_up.is_set()
            records = await until_caught_up(log)
            assert sorted((r.key, r.value) for r in records if r.value) == [(b"k%d" % n, b"v") for n in range(4)]
            assert [r.key for r in records if r.value is None] == [b"k0"]
            assert records[0].headers == (("h", b"x"),)

            await publisher.publish(topic, key=b"new", value=b"later")
            async with asyncio.timeout(20):
                async for record in log:
                    assert (record.key, record.value) == (b"new", b"later")
                    break
        async with CompactedLog(settings=kafka, topic=topic, from_end=True) as tail:
            assert tail.caught_up.is_set()
            await publisher.publish(topic, key=b"tail", value=b"1")
            async with asyncio.timeout(20):
                async for record in tail:
                    assert record.key == b"tail"
                    break


async def test_a_reader_of_a_time_span_has_caught_up_with_it_and_hands_out_nothing_else(kafka: KafkaSettings) -> None:
    topic = fresh("log")
    await ensure_topics(kafka, [TopicSpec(topic, 3, {"message.timestamp.type": "CreateTime"})])
    now_ms = round(time.time() * 1000)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for minutes_ago in range(60, 0, -1):
        # The third partition holds only what is new.
        partition = 2 if minutes_ago < 5 else minutes_ago % 2
        producer.produce(topic, b"%d" % minutes_ago, partition=partition, timestamp=now_ms - minutes_ago * 60_000)
    assert producer.flush(20) == 0

    async def values(since: int | None, until: int | None) -> set[int]:
        bounds = [None if minutes is None else now_ms - minutes * 60_000 for minutes in (since, until)]
        async with CompactedLog(settings=kafka, topic=topic, since_ms=bounds[0], until_ms=bounds[1]) as log:
            return {int(record.value or b"0") for record in await until_caught_up(log)}

    assert await values(30, 10) == set(range(11, 31))
    assert await values(10, None) == set(range(1, 11))
    assert await values(None, 30) == set(range(31, 61))
    assert await values(500, 400) == set()


async def test_a_record_that_is_too_large_is_refused_by_name(kafka: KafkaSettings) -> None:
    topic = fresh("log")
    await ensure_topics(kafka, [TopicSpec(topic, 1, {"max.message.bytes": "1000"})])
    async with Publisher(settings=kafka) as publisher:
        with pytest.raises(RecordTooLarge, match=topic):
            await publisher.publish(topic, key=None, value=b"x" * 5_000)
        assert await publisher.publish(topic, key=None, value=b"small") == 0


async def test_a_missing_topic_is_named(kafka: KafkaSettings) -> None:
    async with Publisher(settings=kafka, request_timeout_ms=500) as publisher:
        with pytest.raises(BusError, match="nowhere"):
            await publisher.publish("nowhere", key=None, value=b"x")


async def test_topics_are_made_once_and_a_difference_is_said_but_not_mended(kafka: KafkaSettings) -> None:
    topic = fresh("made")
    spec = TopicSpec(topic, 3, {"retention.ms": "60000", "message.timestamp.type": "LogAppendTime"})
    assert await ensure_topics(kafka, [spec]) == []
    assert await ensure_topics(kafka, [spec]) == []
    (mismatch,) = await ensure_topics(kafka, [TopicSpec(topic, 5, {"retention.ms": "1"})])
    assert "3 partitions" in str(mismatch)
    assert "retention.ms is 60000" in str(mismatch)
    (found,) = await describe(kafka, [topic, "nowhere"])
    assert found.partitions == 3
    assert found.config["retention.ms"] == "60000"


async def test_the_platforms_topics_can_be_made(kafka: KafkaSettings) -> None:
    assert await ensure_topics(kafka, platform_topics()) == []


async def test_nobody_there_is_said_with_the_address(kafka: KafkaSettings) -> None:
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 "):
        await check_reachable(KafkaSettings("127.0.0.1:1"), timeout_seconds=0.3)
