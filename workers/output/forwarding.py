"""In a pod's agent: sends what the pod's workers print to `rayline.logs`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from rayline.bus.connection import for_ever
from rayline.errors import BusError, RecordTooLarge
from rayline.metrics import Sample
from rayline.metrics.declared import LINES_DROPPED, LINES_PRINTED
from rayline.printed import APP_HEADER, encode_printed
from rayline.topics import LOGS
from workers.output.intake import OutputIntake
from workers.output.limits import OutputLimits
from workers.output.outbox import Outbox, Parcel

# Lines that come within this time go in one record.
GATHER_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0
FINISH_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class LogPublisher(Protocol):
    """What this needs of `rayline.bus.Publisher`."""

    async def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> int: ...


class UserOutput:
    """Owns what the workers of one pod printed until Kafka has it, and a publisher of its own, opened with the first line.

    While Kafka is away lines wait in bounded memory. A record may come twice after an error: nobody counts on lines.

    Life cycle: `start` → `run` until cancelled → `finish` sends what is left, for a second at most.
    """

    def __init__(self, *, cluster: str, node: str, publisher: Callable[[], AbstractAsyncContextManager[LogPublisher]]) -> None:
        self._cluster = cluster
        self._node = node
        self._publisher = publisher
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(on_news=self._tell_news)
        self._intake: OutputIntake | None = None
        self._failing = False
        self._limits = OutputLimits()

    def start(self, folder: Path, *, skew_ms: Callable[[], float | None] = lambda: None) -> None:
        """Listen in the pod's folder (see `OutputIntake`); where that cannot be, workers print into Ray's files."""
        intake = OutputIntake(folder=folder, cluster=self._cluster, node=self._node, outbox=self._outbox, skew_ms=skew_ms)
        try:
            intake.start()
        except OSError as error:
            _log.error("what the workers of %s/%s print is not kept: %s", self._cluster, self._node, error)
            return
        self._intake = intake
        intake.set_limits(self._limits)

    def tune(self, **limits: int | bool) -> None:
        """Other limits from now on (see `OutputLimits`), in workers that run as well."""
        self._limits = replace(self._limits, **limits)  # type: ignore[arg-type]
        if self._intake is not None:
            self._intake.set_limits(self._limits)

    def samples(self) -> list[Sample]:
        """What it counts, for the agent's metrics."""
        return [Sample(LINES_PRINTED, self._outbox.kept), Sample(LINES_DROPPED, self._outbox.dropped)]

    async def run(self) -> None:
        """Send lines as they come, until cancelled."""
        await for_ever(BusError, pause_seconds=RETRY_SECONDS, tell=self._wait)(self._send_while_connected)

    async def _send_while_connected(self) -> None:
        await self._news.wait()
        async with self._publisher() as publisher:
            self._failing = False
            await self._send(publisher)

    def _wait(self, error: BaseException) -> None:
        if not self._failing:
            _log.warning("what the workers of %s/%s print waits: %s", self._cluster, self._node, error)
        self._failing = True

    async def finish(self) -> None:
        """The workers have ended: what they left goes out, as far as that takes no longer than a second."""
        if self._intake is None:
            return
        until = time.monotonic() + FINISH_SECONDS
        await asyncio.to_thread(self._intake.finish, FINISH_SECONDS / 2)
        if not self._outbox.holds_lines:
            return
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())), self._publisher() as publisher:
                await self._send_all(publisher)
        except (TimeoutError, BusError) as error:
            _log.warning("the last lines of %s/%s are lost: %r", self._cluster, self._node, error)

    async def _send(self, publisher: LogPublisher) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._news.clear()
            await self._send_all(publisher)

    async def _send_all(self, publisher: LogPublisher) -> None:
        while parcels := self._outbox.take():
            try:
                await asyncio.gather(*(self._publish(publisher, parcel) for parcel in parcels))
            except RecordTooLarge as error:
                _log.error("lines of %s/%s are lost: %s", self._cluster, self._node, error)
            except BaseException:
                self._outbox.put_back(parcels)
                self._news.set()
                raise

    async def _publish(self, publisher: LogPublisher, parcel: Parcel) -> None:
        printer = parcel.printer
        await publisher.publish(
            LOGS,
            key=printer.place.encode(),
            value=encode_printed(printer, parcel.lines),
            headers=[(APP_HEADER, printer.app.encode())],
        )

    def _tell_news(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            # The loop is closed: `finish` was given up.
            return
