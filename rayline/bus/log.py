"""Platform topics: a compacted log read from its beginning, and a plain publisher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from rayline.bus.connection import close_whole, start_when_reachable
from rayline.bus.protocol import check_client
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError, OffsetLost, RecordTooLarge

_POLL_MS = 500


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record; `value` None is a tombstone. `timestamp_ms` is the broker's time on topics that Rayline makes."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a record came to stand. `timestamp_ms` is the broker's time on topics that Rayline makes."""

    partition: int
    offset: int
    timestamp_ms: int


class CompactedLog:
    """Reads one topic (every partition, or those named), without a group, and goes on for as long as it is iterated.

    Owns one consumer. `caught_up` is set once everything has been handed out that the topic held at `start`: from then
    on the reader's picture is at least as new as its start. `whole` tells (from `start` on) whether all is still there that was
    written since the time that was asked for: False where retention may have taken some. Does not own what the records mean.

    Life: `start` -> `async for record in log` (one iteration at a time) -> `stop`. Also an async context manager.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        topic: str,
        from_end: bool = False,
        since_ms: int | None = None,
        until_ms: int | None = None,
        partitions: Sequence[int] | None = None,
        client_id: str = "rayline-log",
        start_timeout_seconds: float = 30.0,
    ) -> None:
        """`from_end`: begin with what comes after `start` instead of with the first record;
        `since_ms`: begin with what was written at that time (epoch ms) or later; `until_ms`: hand out nothing that was written at
        that time or later, and have caught up with what was before; `partitions`: these instead of all."""
        check_client()
        self._settings = settings
        self._topic = topic
        self._from_end = from_end
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._ends: dict[TopicPartition, int] | None = None
        self._partitions = partitions
        self._start_timeout_seconds = start_timeout_seconds
        self._consumer = AIOKafkaConsumer(
            **settings.client_kwargs(),
            client_id=client_id,
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            # What is written meanwhile comes at once.
            fetch_max_wait_ms=1_000,
            request_timeout_ms=10_000,
            metadata_max_age_ms=30_000,
            retry_backoff_ms=50,
        )
        close_whole(self._consumer._client)
        self._missing: dict[TopicPartition, int] = {}
        self.caught_up = asyncio.Event()
        self.whole = True

    async def start(self) -> None:
        """Connect and find the bounds of the topic.

        Raises:
            BrokerUnavailable: no broker answers.
            BusError: the topic does not exist.
        """
        consumer = self._consumer
        try:
            await start_when_reachable(consumer.start, self._settings, self._start_timeout_seconds)
            present = await consumer._client._wait_on_metadata(self._topic)
            wanted = [p for p in present if self._partitions is None or p in self._partitions]
            partitions = [TopicPartition(self._topic, p) for p in wanted]
            consumer.assign(partitions)
            kept, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
            first = kept
            if self._since_ms is not None:
                found = await consumer.offsets_for_times(dict.fromkeys(partitions, self._since_ms))
                first = {tp: end[tp] if found[tp] is None else found[tp].offset for tp in partitions}
            if self._until_ms is not None:
                found = await consumer.offsets_for_times(dict.fromkeys(partitions, self._until_ms))
                end = {tp: end[tp] if found[tp] is None else min(end[tp], found[tp].offset) for tp in partitions}
                self._ends = end
        except kafka_errors.UnknownTopicOrPartitionError as error:
            await consumer.stop()
            raise BusError(f"the topic {self._topic} does not exist: `rayline up` makes the platform's topics") from error
        except kafka_errors.KafkaError as error:
            await consumer.stop()
            raise BusError(f"the topic {self._topic} cannot be read: {error!r}") from error
        except BaseException:
            await consumer.stop()
            raise
        # Something older is still there, or there never was anything older.
        self.whole = all(kept[tp] == 0 or first[tp] > kept[tp] for tp in partitions)
        for partition in partitions:
            consumer.seek(partition, end[partition] if self._from_end else first[partition])
        self._missing = {tp: end[tp] for tp in partitions if not self._from_end and end[tp] > first[tp]}
        if self._ends is not None:
            consumer.pause(*(tp for tp in partitions if tp not in self._missing))
        self._note_progress()

    async def stop(self) -> None:
        await self._consumer.stop()

    async def __aenter__(self) -> CompactedLog:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def __aiter__(self) -> AsyncIterator[LogRecord]:
        """Records in the order of each partition, for ever.

        Raises:
            OffsetLost: records were deleted before they were read; start a new reader from the beginning.
            BusError: the broker refuses us.
        """
        while True:
            for record in await self._fetch(_POLL_MS):
                yield record
            self._note_progress()

    async def getmany(self, *, timeout_ms: int) -> list[LogRecord]:
        """What has come, at most `timeout_ms` waited for; sets `caught_up` once nothing of the start is missing."""
        records = await self._fetch(timeout_ms)
        self._note_progress()
        return records

    async def check(self, timeout_seconds: float) -> None:
        """Ask the broker for the topic's end: a reader to which nothing comes does not notice by itself that nothing can.

        Raises:
            BusError: no answer in time, or none that helps.
        """
        assigned = list(self._consumer.assignment())
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._consumer.end_offsets(assigned)
        except (TimeoutError, kafka_errors.KafkaError) as error:
            raise BusError(f"the topic {self._topic} cannot be read: {error!r}") from error

    async def _fetch(self, timeout_ms: int) -> list[LogRecord]:
        try:
            fetched = await self._consumer.getmany(timeout_ms=timeout_ms)
        except kafka_errors.OffsetOutOfRangeError as error:
            ((partition, position),) = error.args[0].items()
            raise OffsetLost(partition, position, None) from error
        except kafka_errors.KafkaError as error:
            raise BusError(f"the topic {self._topic} cannot be read: {error!r}") from error
        return [
            LogRecord(tp.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
            for tp, records in fetched.items()
            for r in records
            if self._ends is None or r.offset < self._ends[tp]
        ]

    def _note_progress(self) -> None:
        # By position, not by the last record: the end of a log may be transaction markers or compacted away.
        assignment = self._consumer._subscription.subscription.assignment
        missing = {tp: end for tp, end in self._missing.items() if assignment.state_value(tp).position < end}
        if self._ends is not None:
            self._consumer.pause(*(self._missing.keys() - missing.keys()))
        self._missing = missing
        if not self._missing:
            self.caught_up.set()


class Publisher:
    """Writes single records to any topic, idempotently, outside of any transaction.

    Life: `start` -> `publish` from any number of tasks -> `close`. Also an async context manager.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        client_id: str = "rayline-publisher",
        linger_ms: int = 0,
        max_request_size: int = 10 * 1024 * 1024,
        compression_type: str | None = None,
        request_timeout_ms: int = 15_000,
        start_timeout_seconds: float = 30.0,
    ) -> None:
        check_client()
        self._settings = settings
        self._start_timeout_seconds = start_timeout_seconds
        self._producer = AIOKafkaProducer(
            **settings.client_kwargs(),
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            max_request_size=max_request_size,
            compression_type=compression_type,
            request_timeout_ms=request_timeout_ms,
            retry_backoff_ms=20,
        )
        close_whole(self._producer.client)

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        try:
            await start_when_reachable(self._producer.start, self._settings, self._start_timeout_seconds)
        except BaseException:
            await self._producer.stop()
            raise

    async def close(self) -> None:
        """Wait for what is on its way and close."""
        await self._producer.stop()

    async def __aenter__(self) -> Publisher:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def publish(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> int:
        """Write one record and wait until the broker has it; returns its offset.

        Raises:
            RecordTooLarge: it is larger than the producer or the topic takes.
            BusError: the broker refuses it, or the topic does not exist.
        """
        delivered = await self.enqueue(topic, key=key, value=value, headers=headers, partition=partition)
        return await delivered

    async def enqueue(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> asyncio.Future[int]:
        """As `publish`, but returns once the record is in the send buffer; the future gives its offset or the error."""
        sent = await self.send(topic, key=key, value=value, headers=headers, partition=partition)
        return asyncio.ensure_future(_offset(sent))

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> asyncio.Future[Delivery]:
        """As `enqueue`; the future gives the whole `Delivery`."""
        try:
            sent = await self._producer.send(topic, value, key, partition=partition, headers=list(headers))
        except kafka_errors.KafkaError as error:
            raise _refusal(topic, error) from error
        return asyncio.ensure_future(_delivery(topic, sent))


async def _offset(sent: asyncio.Future[Delivery]) -> int:
    return (await sent).offset


async def _delivery(topic: str, sent: asyncio.Future[Any]) -> Delivery:
    try:
        metadata = await sent
    except kafka_errors.KafkaError as error:
        raise _refusal(topic, error) from error
    return Delivery(metadata.partition, metadata.offset, metadata.timestamp)


def _refusal(topic: str, error: kafka_errors.KafkaError) -> BusError:
    if isinstance(error, (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)):
        return RecordTooLarge(f"a record for {topic} is too large ({error}): make it smaller, or raise max.message.bytes")
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return BusError(f"the topic {topic} does not exist: `rayline up` and `rayline deploy` make the topics")
    return BusError(f"a record for {topic} was not written: {error!r}")
