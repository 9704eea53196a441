"""The transactional producer against a real broker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.transaction import EndTxnRequest

from rayline.bus import (
    MAX_METADATA_CHARS,
    GroupConsumer,
    KafkaSettings,
    Phase,
    RecordBatchWriter,
    TopicPartition,
    TransactionalProducer,
    ensure_topics,
    fence,
)
from rayline.bus.record_batch import encode_headers
from rayline.errors import BusError, MemberFenced, ProducerFenced, RecordTooLarge, TransactionIndefinite
from rayline.topics import TopicSpec, app_topics, requests_topic, results_topic
from tests.support.foreign import read_committed
from tests.support.members import RecordingListener, member
from tests.support.names import fresh

pytestmark = pytest.mark.integration


@dataclass
class Stage:
    """One app's topics with one member that holds the only partition."""

    settings: KafkaSettings
    app: str
    consumer: GroupConsumer

    @property
    def source(self) -> TopicPartition:
        return TopicPartition(requests_topic(self.app), 0)

    @property
    def results(self) -> str:
        return results_topic(self.app)

    def producer(self, transactional_id: str, transaction_timeout_ms: int = 15_000) -> TransactionalProducer:
        return TransactionalProducer(
            settings=self.settings, transactional_id=transactional_id, transaction_timeout_ms=transaction_timeout_ms
        )

    def batch(self, *values: bytes) -> tuple[str, int, RecordBatchWriter]:
        batch = RecordBatchWriter()
        for value in values:
            assert batch.append(key=None, value=value, headers=encode_headers([("h", b"1")]))
        return self.results, 0, batch

    def visible(self) -> list[bytes | None]:
        return [seen.value for seen in read_committed(self.settings, self.results)]

    async def committed(self) -> tuple[int, str]:
        return (await self.consumer.committed_stable([self.source]))[self.source]


@asynccontextmanager
async def staged(settings: KafkaSettings) -> AsyncIterator[Stage]:
    app = fresh("txn")
    assert await ensure_topics(settings, app_topics(app, partitions=1)) == []
    listener = RecordingListener()
    consumer = member(settings, [requests_topic(app)], app, listener)
    await consumer.start()
    try:
        assert len(await listener.assigned.get()) == 1
        yield Stage(settings, app, consumer)
    finally:
        await consumer.stop()


@pytest.fixture
async def stage(kafka: KafkaSettings) -> AsyncIterator[Stage]:
    async with staged(kafka) as value:
        yield value


async def test_results_and_offsets_become_visible_together(stage: Stage) -> None:
    producer = stage.producer("lane-a")
    await producer.start()
    phases: list[Phase] = []
    before_ms = time.time() * 1000
    appended_ms = await producer.commit(
        batches=[stage.batch(b"one", b"two")],
        offsets={stage.source: (2, "ledger")},
        group=stage.consumer.member(),
        on_phase=phases.append,
    )
    await producer.close()
    assert phases == [Phase.BEGUN, Phase.SENT, Phase.OFFSETS_SENT, Phase.COMMITTED]
    assert appended_ms is not None
    assert abs(appended_ms - before_ms) < 10_000
    assert stage.visible() == [b"one", b"two"]
    assert await stage.committed() == (2, "ledger")


async def test_a_claim_commits_offsets_without_records(stage: Stage) -> None:
    assert await stage.committed() == (-1, "")
    producer = stage.producer("lane-a")
    await producer.start()
    assert await producer.commit(batches=[], offsets={stage.source: (0, "mine")}, group=stage.consumer.member()) is None
    assert await producer.commit(batches=[], offsets={stage.source: (0, "still")}, group=stage.consumer.member()) is None
    await producer.close()
    assert await stage.committed() == (0, "still")


async def test_metadata_of_the_full_length_is_taken_and_a_longer_one_refused_before_anything_begins(stage: Stage) -> None:
    producer = stage.producer("lane-a")
    await producer.start()
    full = "x" * MAX_METADATA_CHARS
    with pytest.raises(BusError, match="4097"):
        await producer.commit(batches=[], offsets={stage.source: (1, full + "x")}, group=stage.consumer.member())
    assert producer.usable
    await producer.commit(batches=[], offsets={stage.source: (1, full)}, group=stage.consumer.member())
    await producer.close()
    assert await stage.committed() == (1, full)


async def test_a_stale_generation_commits_nothing_and_holds_no_reader_up(stage: Stage) -> None:
    producer = stage.producer("lane-a")
    await producer.start()
    stale = replace(stage.consumer.member(), generation=stage.consumer.member().generation - 1)
    batch = stage.batch(b"ghost")
    with pytest.raises(MemberFenced):
        await producer.commit(batches=[batch], offsets={stage.source: (9, "")}, group=stale)
    assert not producer.usable
    with pytest.raises(BusError, match="discard"):
        await producer.commit(batches=[], offsets={stage.source: (9, "")}, group=stage.consumer.member())

    other = stage.producer("lane-b")
    await other.start()
    await other.commit(batches=[stage.batch(b"real")], offsets={}, group=stage.consumer.member())
    assert stage.visible() == [b"real"]
    assert await stage.committed() == (-1, "")
    await producer.discard()
    await other.close()


async def test_a_member_that_is_none_is_refused_before_the_broker_would_let_it_pass(stage: Stage) -> None:
    producer = stage.producer("lane-a")
    await producer.start()
    nobody = replace(stage.consumer.member(), generation=-1, member_id="")
    with pytest.raises(MemberFenced):
        await producer.commit(batches=[], offsets={stage.source: (9, "")}, group=nobody)
    await producer.close()
    assert await stage.committed() == (-1, "")


async def test_the_holder_of_a_taken_id_is_fenced(stage: Stage) -> None:
    first, second = stage.producer("lane-a"), stage.producer("lane-a")
    await first.start()
    await second.start()
    with pytest.raises(ProducerFenced):
        await first.commit(batches=[stage.batch(b"old")], offsets={stage.source: (1, "old")}, group=stage.consumer.member())
    await second.commit(batches=[stage.batch(b"new")], offsets={stage.source: (1, "new")}, group=stage.consumer.member())
    await first.discard()
    await second.close()
    assert stage.visible() == [b"new"]
    assert await stage.committed() == (1, "new")


async def test_fencing_settles_an_open_transaction_and_lets_stable_reads_through(stage: Stage) -> None:
    owner = stage.producer("lane-a")
    await owner.start()
    await leave_open(stage, owner, Phase.OFFSETS_SENT)
    with pytest.raises(BusError, match="fence the producer"):
        await stage.consumer.committed_stable([stage.source], timeout_seconds=0.3)
    assert (await stage.consumer.committed_so_far([stage.source]))[stage.source] == (-1, "")

    started = time.monotonic()
    await fence(stage.settings, "lane-a")
    assert time.monotonic() - started < 5
    assert await stage.committed() == (-1, "")
    await owner.discard()
    assert stage.visible() == []


class Stopped(Exception):
    """What the test raises inside a transaction."""


async def leave_open(stage: Stage, producer: TransactionalProducer, phase: Phase) -> None:
    """Run a transaction as far as `phase` and no further."""

    def on_phase(at: Phase) -> None:
        if at is phase:
            raise Stopped

    with pytest.raises(TransactionIndefinite, match=phase):
        await producer.commit(
            batches=[stage.batch(b"open")],
            offsets={stage.source: (5, "open")},
            group=stage.consumer.member(),
            on_phase=on_phase,
        )


@pytest.mark.parametrize("phase", [Phase.BEGUN, Phase.SENT, Phase.OFFSETS_SENT])
async def test_a_discarded_producer_has_committed_nothing(stage: Stage, phase: Phase) -> None:
    producer = stage.producer("lane-a")
    await producer.start()
    await leave_open(stage, producer, phase)
    await producer.discard()
    successor = stage.producer("lane-a")
    await successor.start()
    await successor.commit(batches=[stage.batch(b"next")], offsets={stage.source: (1, "next")}, group=stage.consumer.member())
    await successor.close()
    assert stage.visible() == [b"next"]
    assert await stage.committed() == (1, "next")


async def test_a_record_over_the_brokers_limit_is_named_and_takes_nothing_with_it(kafka: KafkaSettings) -> None:
    async with staged(kafka) as stage:
        small = fresh("small")
        await ensure_topics(kafka, [TopicSpec(small, 1, {"max.message.bytes": "2000"})])
        producer = stage.producer("lane-a")
        await producer.start()
        batch = RecordBatchWriter()
        assert batch.append(key=None, value=b"x" * 5_000)
        with pytest.raises(RecordTooLarge):
            await producer.commit(
                batches=[stage.batch(b"beside"), (small, 0, batch)],
                offsets={stage.source: (1, "")},
                group=stage.consumer.member(),
            )
        await producer.discard()
        assert stage.visible() == []
        assert await stage.committed() == (-1, "")


async def test_a_lost_reply_to_the_commit_is_indefinite_and_the_state_can_be_read_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = stage.producer("lane-a", transaction_timeout_ms=3_000)
    await producer.start()
    client = producer._producer.client
    send = client.send

    async def lose_the_reply(node_id: int, request: object, **kwargs: object) -> object:
        answer = await send(node_id, request, **kwargs)
        if isinstance(request, EndTxnRequest):
            raise RequestTimedOutError
        return answer

    monkeypatch.setattr(client, "send", lose_the_reply)
    with pytest.raises(TransactionIndefinite):
        await producer.commit(batches=[stage.batch(b"done")], offsets={stage.source: (1, "done")}, group=stage.consumer.member())
    await producer.discard()
    successor = stage.producer("lane-a")
    await successor.start()
    assert await stage.committed() == (1, "done")
    await successor.close()
    assert stage.visible() == [b"done"]
