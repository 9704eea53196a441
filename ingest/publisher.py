"""Writes what ended: results, dead letters and consumed offsets in one Kafka transaction after another."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.structs import TopicPartition

from ingest.partition import PartitionState, Share
from ingest.records import dead_letter_headers, journey_headers, result_headers
from ingest.tracing import end_job_span
from rayline.bus.consumer import GroupConsumer
from rayline.bus.settings import KafkaSettings
from rayline.bus.transactions import BatchBuilder, Phase, TransactionalProducer
from rayline.clock import BrokerClock
from rayline.errors import MemberFenced, RecordTooLarge, TransactionIndefinite
from rayline.jobs import Header
from rayline.results import Outcome
from rayline.topics import EVENTS, dlq_topic, results_topic
from scheduler.dispatcher import Journey

_log = logging.getLogger(__name__)

TRANSACTION_INTERVAL_SECONDS: Final = 0.025
MAX_RESULTS_A_TRANSACTION: Final = 4_000

PhaseHook = Callable[[Phase], None]


@dataclass(slots=True)
class PublisherStatistics:
    """Counters since the start of the lane."""

    transactions: int = 0
    results: dict[Outcome, int] = field(default_factory=dict)
    dead_letters: int = 0
    recoveries: int = 0


class ResultPublisher:
    """Owns the lane's transactional producer and the order of its transactions.

    Does not own partitions (it is given the lane's), membership, or what a result says. While `suspended` (a rebalance) it
    publishes nothing. After any failed transaction it discards the producer, makes a new one under the same id and reads the
    committed state back; a `ProducerFenced` ends the lane.

    Life: `start` → `claim` for each takeover, `run` beside it → `close`.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        app: str,
        transactional_id: str,
        consumer: GroupConsumer,
        partitions: Mapping[TopicPartition, PartitionState],
        clock: BrokerClock,
        result_partitions: int,
        on_phase: PhaseHook | None = None,
    ) -> None:
        self._settings = settings
        self._results_topic = results_topic(app)
        self._dlq_topic = dlq_topic(app)
        self._transactional_id = transactional_id
        self._consumer = consumer
        self._partitions = partitions
        self._clock = clock
        self._result_partitions = result_partitions
        self._on_phase = on_phase
        self._producer = self._new_producer()
        self._turn = asyncio.Lock()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._suspended = True
        self._last_begin = 0.0
        self.statistics = PublisherStatistics()

    async def start(self) -> None:
        await self._producer.start()

    async def close(self) -> None:
        await self._producer.close()

    def notify(self) -> None:
        """Something ended."""
        self._idle.clear()
        self._work.set()

    async def suspend(self) -> None:
        """Publish nothing from here on; returns when the transaction that is open has ended."""
        self._suspended = True
        async with self._turn:
            return

    def resume(self) -> None:
        self._suspended = False
        self.notify()

    async def wait_idle(self) -> None:
        """Until everything that ended is published."""
        await self._idle.wait()

    async def claim(self, partitions: Iterable[TopicPartition], event: Mapping[str, Any]) -> None:
        """Commit the ledgers of these partitions in our own name, with an event that tells of it, before any dispatch.

        The event's append time also tells the broker's time before the first deadline is compared.

        Raises:
            MemberFenced, ProducerFenced, TransactionIndefinite: as `TransactionalProducer.commit`.
        """
        async with self._turn:
            if not self._producer.usable:
                await self._renew()
            batch = self._producer.new_batch()
            batch.append(timestamp=None, key=None, value=json.dumps({"v": 1, **event}).encode())
            offsets = {}
            for tp in partitions:
                plan = self._partitions[tp].ledger.plan(())
                offsets[tp] = (plan.frontier, plan.metadata)
            await self._commit([(EVENTS, 0, batch)], offsets)

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            ProducerFenced: another process took our id.
        """
        while True:
            await self._work.wait()
            pause = self._last_begin + TRANSACTION_INTERVAL_SECONDS - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            async with self._turn:
                self._work.clear()
                if not self._suspended:
                    await self._publish()

    async def _publish(self) -> None:
        shares: dict[TopicPartition, Share] = {}
        waiting = sum(state.waiting > 0 for state in self._partitions.values())
        most = max(1, MAX_RESULTS_A_TRANSACTION // max(1, waiting))
        for tp, state in self._partitions.items():
            share = state.share(most) if state.owned else None
            if share is not None:
                shares[tp] = share
        if not shares:
            if not any(state.waiting for state in self._partitions.values()):
                self._idle.set()
            return
        self._last_begin = time.monotonic()
        try:
            offsets = {tp: (share.plan.frontier, share.plan.metadata) for tp, share in shares.items()}
            await self._commit(self._build(shares), offsets)
        except MemberFenced as error:
            _log.warning("%s", error)
            self._suspended = True
            await self._renew()
            return
        except (TransactionIndefinite, RecordTooLarge) as error:
            _log.warning("%s", error)
            if isinstance(error, RecordTooLarge):
                self._shrink_largest(shares.values())
            await self._recover(list(shares))
            self._work.set()
            return
        for tp, share in shares.items():
            self._partitions[tp].published(share)
            for ended in share.ended:
                self.statistics.results[ended.outcome] = self.statistics.results.get(ended.outcome, 0) + 1
                if ended.job.span is not None:
                    end_job_span(ended.job.span, ended, self._clock)
        if any(state.waiting for state in self._partitions.values()):
            self._work.set()
        else:
            self._idle.set()

    async def _commit(
        self, batches: list[tuple[str, int, BatchBuilder]], offsets: Mapping[TopicPartition, tuple[int, str]]
    ) -> None:
        sent_at = time.monotonic()
        append_ms = await self._producer.commit(
            batches=batches, offsets=offsets, group=self._consumer.member(), on_phase=self._on_phase
        )
        self.statistics.transactions += 1
        if append_ms is not None:
            self._clock.observe_append(append_ms=append_ms, sent_at=sent_at, acknowledged_at=time.monotonic())

    def _build(self, shares: Mapping[TopicPartition, Share]) -> list[tuple[str, int, BatchBuilder]]:
        """Record batches for the results of each partition, and for dead letters."""
        now = time.monotonic()
        now_ms = self._clock.at(now)
        arrived_offset_ms = self._clock.at(0.0)
        shared: dict[Journey, tuple[Header, ...]] = {}
        batches: list[tuple[str, int, BatchBuilder]] = []
        letters = _BatchWriter(self._producer, self._dlq_topic, 0, batches)
        for tp, share in shares.items():
            # The same partition number keeps the order of a key, and the key's partition where the counts are equal.
            writer = _BatchWriter(self._producer, self._results_topic, tp.partition % self._result_partitions, batches)
            for ended in share.ended:
                journey = ended.journey
                common = None
                if journey is not None:
                    common = shared.get(journey)
                    if common is None:
                        common = shared[journey] = journey_headers(journey)
                job = ended.job
                headers = result_headers(
                    ended,
                    common,
                    appended_ms=job.timestamp_ms,
                    arrived_ms=job.arrived * 1000 + arrived_offset_ms,
                    now=now,
                )
                writer.append(job.key, ended.value, headers)
                if ended.dead_letter is not None:
                    letters.append(job.key, job.payload, dead_letter_headers(ended, time_ms=int(now_ms)))
                    self.statistics.dead_letters += 1
        return batches

    def _shrink_largest(self, shares: Iterable[Share]) -> None:
        """The broker refuses a record for its size: the largest feature becomes an error, and the rest goes on."""
        ended = max(
            (ended for share in shares for ended in share.ended if ended.value is not None),
            key=lambda ended: len(ended.value or b""),
            default=None,
        )
        if ended is None:
            return
        size = len(ended.value or b"")
        ended.outcome, ended.value, ended.dead_letter = Outcome.ERROR, None, None
        ended.error_type = "rayline.ResultTooLarge"
        ended.error_message = (
            f"the feature has {size} bytes, more than the broker takes (max.message.bytes of {self._results_topic})"
        )

    async def _recover(self, partitions: Iterable[TopicPartition]) -> None:
        """A new producer (which settles what is open), then what Kafka says is committed."""
        await self._renew()
        for tp, (committed, metadata) in (await self._consumer.committed_stable(list(partitions))).items():
            self._partitions[tp].reconcile(committed, metadata)

    async def _renew(self) -> None:
        self.statistics.recoveries += 1
        await self._producer.discard()
        self._producer = self._new_producer()
        await self._producer.start()

    def _new_producer(self) -> TransactionalProducer:
        return TransactionalProducer(settings=self._settings, transactional_id=self._transactional_id)


class _BatchWriter:
    """Appends records for one partition, opening a new batch whenever one is full."""

    def __init__(
        self, producer: TransactionalProducer, topic: str, partition: int, batches: list[tuple[str, int, BatchBuilder]]
    ) -> None:
        self._producer = producer
        self._where = (topic, partition)
        self._batches = batches
        self._batch: BatchBuilder | None = None

    def append(self, key: bytes | None, value: bytes | None, headers: list[Header]) -> None:
        batch = self._batch
        if batch is None or batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            batch = self._batch = self._producer.new_batch()
            self._batches.append((*self._where, batch))
            batch.append(timestamp=None, key=key, value=value, headers=headers)
