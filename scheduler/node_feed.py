"""Reads what is told of the nodes, from Kafka into a view: `rayline.view`, and `rayline.reports` as far as it is needed."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from rayline.bus import CompactedLog, KafkaSettings
from rayline.errors import OffsetLost
from rayline.topics import BEATS_PARTITION, CHANGES_PARTITION, REPORTS, VIEW
from rayline.waits import together
from scheduler.listener import Heard, Listener

_log = logging.getLogger(__name__)
_POLL_MS: Final = 500
# Everybody speaks each second: what is older was said again since.
MEMORY_SECONDS: Final = 5.0


class NodeFeed:
    """Owns the readers; hands what they hear to `take`, each at the time it was written. Does not own the view.

    Life: `start` → `run` until cancelled (with `caught_up` set once all is taken that stood there at the start) → `close`.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        listener: Listener,
        take: Callable[[Heard], None],
        direct: bool = True,
        memory_seconds: float = MEMORY_SECONDS,
        client_id: str = "rayline-nodes",
    ) -> None:
        """`direct` False: the nodes' own reports are not read at all."""
        self._settings = settings
        self._listener = listener
        self._take = take
        self._memory_seconds = memory_seconds
        self._client_id = client_id
        self._sources = [(VIEW, None)] + [(REPORTS, p) for p in (CHANGES_PARTITION, BEATS_PARTITION) if direct]
        self._logs: dict[tuple[str, int | None], CompactedLog] = {}
        self._stack = AsyncExitStack()
        self.caught_up = asyncio.Event()

    async def start(self) -> None:
        """Connect; raises BusError when the platform's topics do not exist."""
        async with AsyncExitStack() as stack:
            logs = [self._open(topic, partition) for topic, partition in self._sources]
            for log in logs:
                stack.push_async_callback(log.stop)
            await together(*(log.start() for log in logs))
            self._logs = dict(zip(self._sources, logs, strict=True))
            self._stack = stack.pop_all()

    async def close(self) -> None:
        await self._stack.aclose()

    async def __aenter__(self) -> NodeFeed:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(self) -> None:
        """Read until cancelled. Raises BusError when the broker refuses us."""
        async with asyncio.TaskGroup() as tasks:
            for source, log in self._logs.items():
                tasks.create_task(self._read(source, log), name=f"{source[0]} {source[1]}")
            tasks.create_task(self._wait_caught_up(), name="catching up")

    async def _wait_caught_up(self) -> None:
        for log in self._logs.values():
            await log.caught_up.wait()
        self.caught_up.set()

    async def _read(self, source: tuple[str, int | None], log: CompactedLog) -> None:
        topic, partition = source
        idle_at = -math.inf
        while partition != BEATS_PARTITION or self._listener.takes_beats:
            try:
                records = await log.getmany(timeout_ms=_POLL_MS)
            except OffsetLost as error:
                _log.warning("%s: %s; going on with what is there", topic, error)
                log.caught_up.set()
                log = await self._stack.enter_async_context(self._open(topic, partition))
                continue
            read_at = time.monotonic()
            for record in records:
                heard = self._listener.hear(topic, record, read_at, idle_at)
                if heard is not None:
                    self._take(heard)
            if not records:
                idle_at = read_at
        log.caught_up.set()
        await log.stop()

    def _open(self, topic: str, partition: int | None) -> CompactedLog:
        since_ms = round((time.time() - self._memory_seconds) * 1000)
        partitions = None if partition is None else [partition]
        return CompactedLog(
            settings=self._settings,
            topic=topic,
            since_ms=since_ms,
            partitions=partitions,
            client_id=self._client_id,
        )
