"""Writes what ended: results, dead letters and consumed offsets in one Kafka transaction after another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiokafka.structs import TopicPartition

from ingest.batches import BatchBuilding, Outgoing
from ingest.metering import JobMeters
from ingest.partition import PartitionState, Share
from ingest.records import Ended
from ingest.tracing import end_job_span
from rayline.bus.consumer import GroupConsumer
from rayline.bus.protocol import GroupMember
from rayline.bus.record_batch import RecordBatchWriter
from rayline.bus.settings import KafkaSettings
from rayline.bus.transactions import Batches, Phase, TransactionalProducer
from rayline.clock import BrokerClock
from rayline.errors import MemberFenced, RecordTooLarge, TransactionIndefinite
from rayline.events import Event, encode_event
from rayline.results import Outcome
from rayline.topics import EVENTS, dlq_topic, results_topic
from rayline.waits import news_by

_log = logging.getLogger(__name__)

TRANSACTION_INTERVAL_SECONDS: Final = 0.04
MAX_TRANSACTION_INTERVAL_SECONDS: Final = 0.25
SERVICE_SHARE: Final = 0.1
MAX_RESULTS_A_TRANSACTION: Final = 8_000
MAX_BYTES_A_TRANSACTION: Final = 32 * 1024 * 1024

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
        meters: JobMeters,
        on_phase: PhaseHook | None = None,
        on_published: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
        self._consumer = consumer
        self._partitions = partitions
        self._clock = clock
        self._meters = meters
        self._building = BatchBuilding(
            results_topic=results_topic(app), result_partitions=result_partitions, dlq_topic=dlq_topic(app), clock=clock
        )
        self._on_phase = on_phase
        self._on_published = on_published
        self._producer = self._new_producer()
        self._turn = asyncio.Lock()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._suspended = True
        self._last_end = 0.0
        self._opened_at = 0.0
        self._interval_seconds = TRANSACTION_INTERVAL_SECONDS
        self._max_interval_seconds = MAX_TRANSACTION_INTERVAL_SECONDS
        self._service_seconds = 0.0  # a mean of the last batches'
        self._max_results = MAX_RESULTS_A_TRANSACTION
        self.statistics = PublisherStatistics()

    async def start(self) -> None:
        await self._producer.start()

    async def close(self) -> None:
        await self._producer.close()

    def set_interval(self, seconds: float) -> None:
        """Keep a transaction open so long at least for what else ends, the one that is open as well."""
        self._interval_seconds = seconds
        self._work.set()

    def set_max_interval(self, seconds: float) -> None:
        """Keep it open as long as a batch takes, and so long at most, the one that is open as well."""
        self._max_interval_seconds = seconds
        self._work.set()

    def observe_service(self, seconds: float) -> None:
        """An answer came so long after its batch was dispatched."""
        self._service_seconds += SERVICE_SHARE * (seconds - self._service_seconds)

    def set_max_results(self, results: int) -> None:
        """Publish about so many results in one transaction at most, from the next one on."""
        self._max_results = results

    def notify(self) -> None:
        """Something ended."""
        self._idle.clear()
        self._work.set()

    async def suspend(self) -> None:
        """Publish nothing from here on; returns when the transaction that is open has ended."""
        self._suspended = True
        self._work.set()
        async with self._turn:
            return

    def resume(self) -> None:
        self._suspended = False
        self.notify()

    async def wait_idle(self) -> None:
        """Until everything that ended is published."""
        await self._idle.wait()

    async def claim(self, partitions: Iterable[TopicPartition], event: Event, *, member: GroupMember) -> None:
        """Commit the ledgers of these partitions in our own name, with an event that tells of it, before any dispatch.

        `member` is the membership under which they were assigned: once the group has moved on they may be another's, and only
        the broker can tell. The event's append time also tells the broker's time before the first deadline is compared.

        Raises:
            MemberFenced, ProducerFenced, TransactionIndefinite: as `TransactionalProducer.commit`.
        """
        async with self._turn:
            if not self._producer.usable:
                await self._renew()
            batch = RecordBatchWriter()
            batch.append(key=event.key, value=encode_event(event))
            offsets = {}
            for tp in partitions:
                plan = self._partitions[tp].ledger.plan(())
                offsets[tp] = (plan.frontier, plan.metadata)
            await self._commit([(EVENTS, 0, batch)], offsets, member)

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            ProducerFenced: another process took our id.
        """
        while True:
            await self._work.wait()
            async with self._turn:
                self._work.clear()
                if not self._suspended:
                    await self._publish()

    async def _publish(self) -> None:
        shares: dict[TopicPartition, Share] = {}
        self._take_shares(shares)
        if not shares:
            if not any(state.waiting for state in self._partitions.values()):
                self._idle.set()
            return
        self._opened_at = time.monotonic()
        outgoing: list[Outgoing] = []
        offsets: dict[TopicPartition, tuple[int, str]] = {}
        try:
            await self._commit(self._build(shares, outgoing, offsets), offsets, self._consumer.member())
        except MemberFenced as error:
            _log.warning("%s", error)
            self._suspended = True
            await self._renew()
            return
        except (TransactionIndefinite, RecordTooLarge) as error:
            _log.warning("%s", error)
            if isinstance(error, RecordTooLarge) and not self._building.make_smaller(outgoing, self._replace_value):
                raise
            await self._recover(list(shares))
            self._work.set()
            return
        self._last_end = time.monotonic()
        self._account(shares)

    def _closes(self) -> float:
        """When the open transaction closes (monotonic seconds), by the intervals that hold now."""
        # What comes alone is not kept waiting; what follows shares a transaction, and waits no longer than it took to run.
        interval = max(self._interval_seconds, min(self._service_seconds, self._max_interval_seconds))
        return self._opened_at + interval if self._opened_at - self._last_end < interval else self._opened_at

    def _take_shares(self, shares: dict[TopicPartition, Share]) -> None:
        """Shares of the partitions that have none yet."""
        waiting = sum(state.waiting > 0 for state in self._partitions.values())
        most = max(1, self._max_results // max(1, waiting))
        most_bytes = MAX_BYTES_A_TRANSACTION // max(1, waiting)
        for tp, state in self._partitions.items():
            if tp not in shares and state.owned and (share := state.share(most, most_bytes)) is not None:
                shares[tp] = share

    async def _build(
        self,
        shares: dict[TopicPartition, Share],
        outgoing: list[Outgoing],
        offsets: dict[TopicPartition, tuple[int, str]],
    ) -> AsyncIterator[tuple[str, int, RecordBatchWriter]]:
        """The batches of a transaction, one by one, with what else ends until it closes.

        `shares` grow by that, `outgoing` collects the batches, `offsets` is filled at the end.
        """
        batches = self._building.begin()
        taken = dict.fromkeys(shares, 0)
        results, size_bytes = 0, 0
        while True:
            now = time.monotonic()
            for tp, share in list(shares.items()):
                start = taken.get(tp, 0)
                room = max(0, self._max_results - results)
                jobs = share.ended if start == 0 else self._partitions[tp].more(share, start, room)
                taken[tp] = start + len(jobs)
                results += len(jobs)
                for out in batches.add(tp.partition, jobs, now=now):
                    size_bytes += out.batch.size()
                    outgoing.append(out)
                    yield (*out.where, out.batch)
                    # The rest of the lane goes on between two batches.
                    await asyncio.sleep(0)
            full = results >= self._max_results or size_bytes >= MAX_BYTES_A_TRANSACTION
            if full or self._suspended or not await self._more_ended():
                break
            self._take_shares(shares)
        for out in batches.rest():
            outgoing.append(out)
            yield (*out.where, out.batch)
        for tp, share in shares.items():
            shares[tp] = whole = self._partitions[tp].close_share(share, taken[tp])
            offsets[tp] = (whole.plan.frontier, whole.plan.metadata)

    async def _more_ended(self) -> bool:
        """Wait until more jobs have ended, or an interval is another; False when it is time to close."""
        closes = self._closes()
        if time.monotonic() >= closes or not await news_by(self._work, closes):
            return False
        self._work.clear()
        return True

    def _account(self, shares: Mapping[TopicPartition, Share]) -> None:
        """These were committed."""
        counts = self.statistics.results
        now = time.monotonic()
        broker_ms = self._clock.at(now)
        for tp, share in shares.items():
            self._partitions[tp].published(share)
            self._meters.committed(share.ended, now=now, broker_ms=broker_ms)
            for outcome, jobs in Counter([ended.outcome for ended in share.ended]).items():
                counts[outcome] = counts.get(outcome, 0) + jobs
            for ended in share.ended:
                if ended.dead_letter is not None:
                    self.statistics.dead_letters += 1
                if ended.job.span is not None:
                    end_job_span(ended.job.span, ended, self._clock)
        if any(state.waiting for state in self._partitions.values()):
            self._work.set()
        else:
            self._idle.set()
        if self._on_published is not None:
            self._on_published()

    async def _commit(
        self,
        batches: Batches,
        offsets: Mapping[TopicPartition, tuple[int, str]],
        member: GroupMember,
    ) -> None:
        sent_at = time.monotonic()
        append_ms = await self._producer.commit(batches=batches, offsets=offsets, group=member, on_phase=self._on_phase)
        self.statistics.transactions += 1
        self._meters.transaction(time.monotonic() - sent_at)
        if append_ms is not None:
            self._clock.observe_append(append_ms=append_ms, sent_at=sent_at, acknowledged_at=time.monotonic())

    def _replace_value(self, ended: Ended, error_type: str, error_message: str) -> None:
        state = self._partitions[TopicPartition(ended.job.topic, ended.job.partition)]
        state.replace_value(ended, error_type=error_type, error_message=error_message)

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
