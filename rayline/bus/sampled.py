"""Many topics read by one consumer, each as fast as its reader allows: what is too much is skipped, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from rayline.bus.connection import close_whole, start_when_reachable
from rayline.bus.log import LogRecord
from rayline.bus.protocol import check_client
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError


@dataclass(frozen=True, slots=True)
class Sampled:
    """What came of one topic, and how many offsets before it were skipped."""

    records: tuple[LogRecord, ...]
    skipped: int


class SampledTopics:
    """Reads near the ends of topics, without a group.

    Owns one consumer and its positions. Does not own what the records mean, nor the pace: `pull` is called from time to time, and
    never waits. Life: `start` → `follow` whenever the topics change, `pull` → `stop`; also an async context manager.
    """

    def __init__(
        self, *, settings: KafkaSettings, client_id: str = "rayline-sampled", max_partition_fetch_bytes: int = 64 * 1024
    ) -> None:
        check_client()
        self._settings = settings
        self._consumer = AIOKafkaConsumer(
            **settings.client_kwargs(),
            client_id=client_id,
            isolation_level="read_committed",
            # Where retention was faster than we, what is lost was not going to be read anyway.
            auto_offset_reset="latest",
            enable_auto_commit=False,
            fetch_max_wait_ms=1_000,
            max_partition_fetch_bytes=max_partition_fetch_bytes,
            request_timeout_ms=10_000,
            metadata_max_age_ms=30_000,
            retry_backoff_ms=50,
        )
        close_whole(self._consumer._client)
        self._positions: dict[TopicPartition, int] = {}
        self._topics: dict[str, list[TopicPartition]] = {}

    async def start(self, start_timeout_seconds: float = 30.0) -> None:
        """Connect; raises BrokerUnavailable when no broker answers."""
        try:
            await start_when_reachable(self._consumer.start, self._settings, start_timeout_seconds)
        except BaseException:
            await self._consumer.stop()
            raise

    async def stop(self) -> None:
        await self._consumer.stop()

    async def __aenter__(self) -> SampledTopics:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def topics(self) -> Collection[str]:
        return self._topics.keys()

    def follow(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions; one that is read already goes on where it is, a new one begins at the offset given."""
        self._positions = {partition: self._positions.get(partition, start) for partition, start in starts.items()}
        self._topics = {}
        for partition in starts:
            self._topics.setdefault(partition.topic, []).append(partition)
        if not starts:
            self._consumer.unsubscribe()
            return
        self._consumer.assign(list(starts))
        for partition, position in self._positions.items():
            self._consumer.seek(partition, position)

    async def pull(self, topic: str, *, max_records: int, max_behind: int, ends: Mapping[TopicPartition, int]) -> Sampled:
        """What is at hand of a topic. A partition that is more than `max_behind` behind its end is read on from there.

        Raises:
            BusError: the broker refuses us.
        """
        partitions = self._topics.get(topic, ())
        if not partitions:
            return Sampled((), 0)
        skipped = 0
        for partition in partitions:
            position = self._positions[partition]
            end = max(ends.get(partition, 0), self._consumer.last_stable_offset(partition) or 0)
            if end - position > max_behind:
                wanted = end - max_behind // 2
                self._consumer.seek(partition, wanted)
                self._positions[partition] = wanted
                skipped += wanted - position
        try:
            async with asyncio.timeout(5.0):
                fetched = await self._consumer.getmany(*partitions, timeout_ms=0, max_records=max_records)
        except (TimeoutError, kafka_errors.KafkaError) as error:
            raise BusError(f"the topic {topic} cannot be read: {error!r}") from error
        assignment = self._consumer._subscription.subscription.assignment
        for partition in partitions:
            state = assignment.state_value(partition)
            if state.has_valid_position:
                self._positions[partition] = state.position
        return Sampled(
            tuple(
                LogRecord(tp.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
                for tp, records in fetched.items()
                for r in records
            ),
            skipped,
        )
