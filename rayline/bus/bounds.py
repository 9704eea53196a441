"""Where many topics begin and end, and how far groups have come, asked again and again with few questions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from rayline.bus.connection import close_whole, start_when_reachable
from rayline.bus.protocol import NO_OFFSET, check_client
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError


class TopicBounds:
    """Asks for the offsets of any number of topics and groups.

    Owns one consumer that is in no group, and one admin client. Each question is bounded by `timeout_seconds`; a topic that does
    not exist is left out of the answer. Life: `start` → any question → `stop`; also an async context manager.
    """

    def __init__(self, *, settings: KafkaSettings, client_id: str = "rayline-bounds", timeout_seconds: float = 5.0) -> None:
        check_client()
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._consumer = AIOKafkaConsumer(
            **settings.client_kwargs(), client_id=client_id, isolation_level="read_committed", metadata_max_age_ms=30_000
        )
        self._admin = AIOKafkaAdminClient(**settings.client_kwargs(), client_id=client_id, request_timeout_ms=10_000)
        close_whole(self._consumer._client)
        close_whole(self._admin._client)
        self._coordinators: dict[str, int] = {}
        self._partitions: dict[str, list[TopicPartition]] = {}

    async def start(self, start_timeout_seconds: float = 30.0) -> None:
        """Connect; raises BrokerUnavailable when no broker answers."""
        try:
            await start_when_reachable(self._consumer.start, self._settings, start_timeout_seconds)
            await start_when_reachable(self._admin.start, self._settings, start_timeout_seconds)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        try:
            await self._consumer.stop()
        finally:
            await self._admin.close()

    async def __aenter__(self) -> TopicBounds:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """The offset after the last record that a `read_committed` reader may have; raises BusError without an answer."""
        partitions = await self._find(topics)
        return await self._ask(self._consumer.end_offsets(partitions)) if partitions else {}

    async def starts(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """The offset of the first record that is still there; raises BusError without an answer."""
        partitions = await self._find(topics)
        return await self._ask(self._consumer.beginning_offsets(partitions)) if partitions else {}

    async def since(self, topics: Collection[str], at_ms: int) -> dict[TopicPartition, int]:
        """The offset of the first record written at `at_ms` (epoch) or later, or the end. Raises BusError without an answer."""
        partitions = await self._find(topics)
        if not partitions:
            return {}
        found = await self._ask(self._consumer.offsets_for_times(dict.fromkeys(partitions, at_ms)))
        ends = await self.ends(topics)
        return {tp: ends[tp] if found[tp] is None else found[tp].offset for tp in partitions}

    async def committed(self, groups: Mapping[str, str]) -> dict[TopicPartition, int]:
        """Committed offsets by group → topic; partitions without one are left out. Raises BusError without an answer."""
        found: dict[TopicPartition, int] = {}
        for group, topic in groups.items():
            try:
                found |= await self._group(group, topic)
            except BusError:
                # Its coordinator may have moved: the next question finds it anew.
                self._coordinators.pop(group, None)
                raise
        return found

    async def _group(self, group: str, topic: str) -> dict[TopicPartition, int]:
        if group not in self._coordinators:
            self._coordinators[group] = await self._ask(self._admin.find_coordinator(group))
        partitions = await self._find([topic])
        if not partitions:
            return {}
        answer = await self._ask(self._admin.list_consumer_group_offsets(group, self._coordinators[group], partitions))
        return {tp: entry.offset for tp, entry in answer.items() if entry.offset != NO_OFFSET}

    async def _find(self, topics: Collection[str]) -> list[TopicPartition]:
        unknown = [topic for topic in topics if topic not in self._partitions]
        if unknown:
            counts = {each["topic"]: len(each["partitions"]) for each in await self._ask(self._admin.describe_topics())}
            # Asking for a topic by its name would create it on a broker with auto.create.topics.enable.
            self._partitions |= {
                topic: [TopicPartition(topic, p) for p in range(counts[topic])] for topic in unknown if topic in counts
            }
        return [partition for topic in topics for partition in self._partitions.get(topic, ())]

    async def _ask(self, question: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await question
        except (TimeoutError, kafka_errors.KafkaError) as error:
            self._partitions.clear()
            raise BusError(f"the broker at {self._settings.bootstrap_servers} does not tell offsets: {error!r}") from error
