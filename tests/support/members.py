"""A group member whose rebalances a test can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rayline.bus import GroupConsumer, KafkaSettings, TopicPartition


class RecordingListener:
    """Remembers each rebalance; can be told to fail."""

    def __init__(self) -> None:
        self.assigned: asyncio.Queue[frozenset[TopicPartition]] = asyncio.Queue()
        self.revoked: asyncio.Queue[frozenset[TopicPartition]] = asyncio.Queue()
        self.fail_with: Exception | None = None

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.revoked.put_nowait(partitions)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.assigned.put_nowait(partitions)
        if self.fail_with is not None:
            raise self.fail_with


def member(
    settings: KafkaSettings,
    topics: Sequence[str],
    group_id: str,
    listener: RecordingListener,
    *,
    client_id: str = "test-member",
    group_instance_id: str | None = None,
    session_timeout_ms: int = 2_000,
) -> GroupConsumer:
    """A member with a short session."""
    return GroupConsumer(
        settings=settings,
        topics=topics,
        group_id=group_id,
        listener=listener,
        client_id=client_id,
        group_instance_id=group_instance_id,
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=200,
    )
