"""Waiting for the results of many jobs with one reader."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.results import Result

MAX_REMEMBERED: Final = 10_000
_POLL_MS: Final = 500


class ResultWatch:
    """Reads a results topic from a time on and hands each result to whoever waits for it.

    Owns one reader and its task, the waiters, and the last results seen (bounded). Waiters get what ends the reader.
    Life: made when first needed -> `wait_for` from any number of tasks -> `close`.
    """

    def __init__(self, *, settings: KafkaSettings, topic: str, since_ms: int, parse: Callable[[LogRecord], Result]) -> None:
        self._settings = settings
        self._topic = topic
        self._since_ms = since_ms
        self._parse = parse
        self._seen: OrderedDict[str, Result] = OrderedDict()
        self._forgotten_until_ms = since_ms
        self._waiters: dict[str, list[asyncio.Future[Result]]] = {}
        self._task = asyncio.create_task(self._read())

    def remembers(self, *, since_ms: int) -> bool:
        """Whether any result of a job written at `since_ms` (epoch ms) or later is still known or still to come."""
        return not self._task.done() and since_ms > self._forgotten_until_ms

    async def wait_for(self, source: str) -> Result:
        """The result of the job at `source` (`topic/partition/offset`).

        Raises:
            FormatError, BusError: what ended the reader.
        """
        if (known := self._seen.get(source)) is not None:
            return known
        waiter: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(source, []).append(waiter)
        try:
            either: set[asyncio.Future[Any]] = {waiter, self._task}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not waiter.done():
                await self._task
            return await waiter
        finally:
            waiting = self._waiters[source]
            waiting.remove(waiter)
            if not waiting:
                del self._waiters[source]

    async def close(self) -> None:
        """Stop reading."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _read(self) -> None:
        async with CompactedLog(
            settings=self._settings, topic=self._topic, since_ms=self._since_ms, client_id="rayline-watch"
        ) as log:
            while True:
                for record in await log.getmany(timeout_ms=_POLL_MS):
                    self._take(self._parse(record))

    def _take(self, result: Result) -> None:
        self._seen[result.source] = result
        if len(self._seen) > MAX_REMEMBERED:
            _, oldest = self._seen.popitem(last=False)
            # A result is written after its job: jobs written later than this result cannot have been forgotten with it.
            self._forgotten_until_ms = max(self._forgotten_until_ms, oldest.timestamp_ms)
        for waiter in self._waiters.get(result.source, ()):
            if not waiter.done():
                waiter.set_result(result)
