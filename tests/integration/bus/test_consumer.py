"""Group membership against a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rayline.bus import (
    GroupConsumer,
    KafkaSettings,
    TopicPartition,
    TransactionalProducer,
    delete_topics,
    ensure_topics,
)
from rayline.errors import BusError, MemberFenced, OffsetLost
from rayline.topics import TopicSpec
from tests.support.foreign import produce
from tests.support.members import RecordingListener, member
from tests.support.names import fresh

pytestmark = pytest.mark.integration


@pytest.fixture
async def topic(kafka: KafkaSettings) -> str:
    name = fresh("group")
    await ensure_topics(kafka, [TopicSpec(name, 2)])
    return name


async def read(consumer: GroupConsumer, count: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    async with asyncio.timeout(20):
        while len(values) < count:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values += [record.value for record in records]
    return values


async def poll_until(consumer: GroupConsumer, done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await done():
            await consumer.getmany(timeout_ms=50)


async def test_no_record_is_handed_out_before_its_partition_was_taken_over(kafka: KafkaSettings, topic: str) -> None:
    produce(kafka, topic, [b"0", b"1", b"2", b"3"], partitions=2)
    listener = RecordingListener()
    consumer = member(kafka, [topic], topic, listener)
    with pytest.raises(MemberFenced):
        consumer.member()
    await consumer.start()
    partitions = await listener.assigned.get()
    assert partitions == {TopicPartition(topic, 0), TopicPartition(topic, 1)}
    assert await consumer.getmany(timeout_ms=500) == {}
    with pytest.raises(BusError, match="seek before resume"):
        consumer.resume(partitions)
    assert consumer.position(TopicPartition(topic, 0)) is None

    for tp, offset in (await consumer.earliest(partitions)).items():
        consumer.seek(tp, offset)
    consumer.resume([TopicPartition(topic, 0)])
    assert await read(consumer, 2) == [b"0", b"2"]
    assert consumer.position(TopicPartition(topic, 0)) == 2
    assert consumer.highwater(TopicPartition(topic, 0)) == 2
    consumer.resume([TopicPartition(topic, 1)])
    assert await read(consumer, 2) == [b"1", b"3"]
    assert await consumer.latest(partitions) == {TopicPartition(topic, 0): 2, TopicPartition(topic, 1): 2}
    await consumer.stop()


async def test_who_asks_stays_a_member_also_while_nothing_may_be_handed_out(kafka: KafkaSettings, topic: str) -> None:
    listener = RecordingListener()
    consumer = GroupConsumer(
        settings=kafka,
        topics=[topic],
        group_id=topic,
        listener=listener,
        client_id="idle",
        heartbeat_interval_ms=300,
        max_poll_interval_ms=1_000,
    )
    await consumer.start()
    partitions = await listener.assigned.get()
    membership = consumer.member()
    until = asyncio.get_running_loop().time() + 3.0  # three times as long as a member may be silent
    while asyncio.get_running_loop().time() < until:
        assert await consumer.getmany(timeout_ms=200) == {}
    assert consumer.member() == membership
    assert consumer.assignment() == partitions
    await consumer.stop(leave=True)


async def test_records_fetched_before_a_pause_stay_until_resume(kafka: KafkaSettings, topic: str) -> None:
    produce(kafka, topic, [b"%d" % number for number in range(10)])
    listener = RecordingListener()
    consumer = member(kafka, [topic], topic, listener)
    await consumer.start()
    await listener.assigned.get()
    first = TopicPartition(topic, 0)
    consumer.seek(first, 0)
    consumer.resume([first])
    async with asyncio.timeout(20):
        while not (head := await consumer.getmany(timeout_ms=200, max_records=3)):
            pass
    assert [record.value for record in head[first]] == [b"0", b"1", b"2"]
    consumer.pause([first])
    assert await consumer.getmany(timeout_ms=300) == {}
    consumer.resume([first])
    assert await read(consumer, 7) == [b"%d" % number for number in range(3, 10)]
    await consumer.stop()


async def test_what_a_listener_raises_comes_out_of_getmany(kafka: KafkaSettings, topic: str) -> None:
    listener = RecordingListener()
    listener.fail_with = LookupError("takeover failed")
    consumer = member(kafka, [topic], topic, listener)
    await consumer.start()
    await listener.assigned.get()
    with pytest.raises(LookupError, match="takeover failed"):
        await poll_until(consumer, never)
    await consumer.stop()


async def never() -> bool:
    return False


async def test_a_position_that_kafka_no_longer_holds_is_said_and_not_reset(kafka: KafkaSettings, topic: str) -> None:
    produce(kafka, topic, [b"0", b"1"], partitions=2)
    listener = RecordingListener()
    consumer = member(kafka, [topic], topic, listener)
    await consumer.start()
    await listener.assigned.get()
    lost, kept = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer.seek(lost, 700)
    consumer.resume([lost])
    with pytest.raises(OffsetLost) as caught:
        await poll_until(consumer, never)
    assert (caught.value.partition, caught.value.position, caught.value.earliest) == (lost, 700, 0)
    consumer.seek(kept, 0)
    consumer.resume([kept])
    assert await read(consumer, 1) == [b"1"]
    assert await consumer.getmany(timeout_ms=500) == {}
    await consumer.stop()


async def test_a_rebalance_ends_the_old_membership(kafka: KafkaSettings, topic: str) -> None:
    first_listener, second_listener = RecordingListener(), RecordingListener()
    first = member(kafka, [topic], topic, first_listener, client_id="first")
    await first.start()
    assert len(await first_listener.assigned.get()) == 2
    old = first.member()
    assert await first.live_members() == {"first"}

    second = member(kafka, [topic], topic, second_listener, client_id="second")
    await second.start()
    assert len(await first_listener.revoked.get()) == 2
    assert len(await first_listener.assigned.get()) == 1
    assert len(await second_listener.assigned.get()) == 1
    assert await first.live_members() == {"first", "second"}
    assert first.member().generation > old.generation

    producer = TransactionalProducer(settings=kafka, transactional_id=fresh("lane"))
    await producer.start()
    with pytest.raises(MemberFenced):
        await producer.commit(batches=[], offsets={TopicPartition(topic, 0): (1, "")}, group=old)
    await producer.discard()
    await second.stop()
    await first.stop()


async def test_a_static_member_keeps_its_partitions_through_a_restart_and_gives_them_up_when_it_leaves(
    kafka: KafkaSettings, topic: str
) -> None:
    listener = RecordingListener()
    consumer = member(kafka, [topic], topic, listener, client_id="before", group_instance_id="lane-0")
    await consumer.start()
    assert len(await listener.assigned.get()) == 2
    generation = consumer.member().generation
    await consumer.stop()

    listener = RecordingListener()
    again = member(kafka, [topic], topic, listener, client_id="after", group_instance_id="lane-0")
    await again.start()
    async with asyncio.timeout(1.5):
        assert len(await listener.assigned.get()) == 2
    assert again.member().generation == generation
    assert again.member().instance_id == "lane-0"

    watcher_listener = RecordingListener()
    watcher = member(kafka, [topic], topic, watcher_listener, client_id="watcher", session_timeout_ms=6_000)
    await watcher.start()
    await watcher_listener.assigned.get()
    await again.stop(leave=True)
    assert await watcher.live_members() == {"watcher"}
    await watcher.stop()


async def test_a_missing_topic_is_named_at_start(kafka: KafkaSettings) -> None:
    consumer = GroupConsumer(
        settings=kafka,
        topics=["no-such-topic"],
        group_id=fresh("group"),
        listener=RecordingListener(),
        client_id="x",
        request_timeout_ms=500,
    )
    with pytest.raises(BusError, match="no-such-topic"):
        await consumer.start()


@pytest.mark.parametrize("records_after", [0, 30])
async def test_a_topic_made_again_is_said_even_where_the_new_one_reaches_further(
    kafka: KafkaSettings, topic: str, records_after: int
) -> None:
    produce(kafka, topic, [b"%d" % number for number in range(10)])
    listener = RecordingListener()
    consumer = member(kafka, [topic], topic, listener)
    await consumer.start()
    await listener.assigned.get()
    first = TopicPartition(topic, 0)
    consumer.seek(first, 0)
    consumer.resume([first])
    await read(consumer, 10)
    await delete_topics(kafka, [topic])
    await ensure_topics(kafka, [TopicSpec(topic, 2)])
    produce(kafka, topic, [b"other"] * records_after)
    with pytest.raises(OffsetLost) as caught:
        await read(consumer, 1)
    assert (caught.value.partition, caught.value.position) == (first, 10)
    await consumer.stop()
