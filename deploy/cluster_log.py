"""The topic `rayline.clusters` as a book that follows it, and how people write into it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from rayline.bus import CompactedLog, KafkaSettings, Publisher
from rayline.clusters import ClusterBook, DesiredCluster, Entry, desired_key, encode_entry
from rayline.errors import FormatError
from rayline.topics import CLUSTERS

_log = logging.getLogger(__name__)
_POLL_MS = 500


class ClusterLog:
    """Reads `rayline.clusters` from its beginning into `book`.

    Owns one reader. A record that cannot be read is skipped with a warning. Life: `async with ClusterLog(...)`, then one of
    `read` (to its present end) or `changes`.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str = "rayline-clusters") -> None:
        self._reader = CompactedLog(settings=settings, topic=CLUSTERS, client_id=client_id)
        self.book = ClusterBook()

    async def __aenter__(self) -> ClusterLog:
        await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()

    async def read(self) -> ClusterBook:
        """The book with everything in it that the topic held when this reader was started."""
        while not self._reader.caught_up.is_set():
            await self._take()
        return self.book

    async def changes(self) -> AsyncGenerator[ClusterBook, None]:
        """The book, once the whole topic is read and after each change of it, for ever."""
        yield await self.read()
        while True:
            if await self._take():
                yield self.book

    async def _take(self) -> bool:
        changed = False
        for record in await self._reader.getmany(timeout_ms=_POLL_MS):
            try:
                changed |= self.book.apply(record.key, record.value)
            except FormatError as error:
                _log.warning("record %d of %s is skipped: %s", record.offset, CLUSTERS, error)
        return changed


async def read_clusters(settings: KafkaSettings, *, timeout_seconds: float = 30.0) -> ClusterBook:
    """What the topic says at this moment; raises BusError when it cannot be read, TimeoutError when it takes too long."""
    async with asyncio.timeout(timeout_seconds), ClusterLog(settings) as log:
        return await log.read()


async def write_entries(publisher: Publisher, *entries: Entry) -> None:
    """Write entries in their order; raises BusError when the broker refuses."""
    for entry in entries:
        key, value = encode_entry(entry)
        await publisher.publish(CLUSTERS, key=key, value=value, partition=0)


async def want_clusters(publisher: Publisher, wanted: list[DesiredCluster], *, remove: list[str]) -> None:
    """Say which clusters there should be, and which not any more."""
    await write_entries(publisher, *wanted)
    for cluster in remove:
        await publisher.publish(CLUSTERS, key=desired_key(cluster), value=None, partition=0)
