"""What the nodes of all clusters report, as a view that one can wait on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from rayline.bus import CompactedLog, KafkaSettings
from rayline.bus.progress import wait_claimed
from rayline.errors import FormatError, LaunchError
from rayline.reports import NodeReport, NodeState, decode_reports
from rayline.topics import REPORTS, group_id, requests_topic
from scheduler.view import NodeView, View

_log = logging.getLogger(__name__)
_POLL_MS: Final = 200
_STAYING: Final = (NodeState.STARTING, NodeState.READY)
_REPORT_MEMORY_SECONDS: Final = 5.0


class NodeWatch:
    """Follows `rayline.reports` from a few seconds before its start.

    Owns one reader, its task, and the merged view. Life: `start` -> `nodes`, `wait_until` -> `close`; what ends the reader
    comes out of `wait_until`.
    """

    def __init__(self, settings: KafkaSettings, *, since_seconds: float = 0.0) -> None:
        since_ms = round((time.time() - since_seconds) * 1000)
        self._log = CompactedLog(settings=settings, topic=REPORTS, since_ms=since_ms, client_id="rayline-node-watch")
        self._view = View()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; raises BusError when the platform's topics do not exist."""
        await self._log.start()
        self._task = asyncio.create_task(self._read(), name="node watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._log.stop()

    async def caught_up(self) -> None:
        """Until all is read that stood in the topic when the watch began."""
        await self._log.caught_up.wait()

    def nodes(self) -> list[NodeView]:
        return self._view.nodes()

    def joined(self) -> list[NodeReport]:
        """Nodes that their cluster's gateway sees and reported lately, with actors or without, and that are not leaving."""
        now = time.monotonic()
        return [
            node.report
            for node in self._view.nodes()
            if node.report.state in _STAYING and node.report.actors is not None and not node.suspect(now)
        ]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds; it is asked again after each report."""
        if self._task is None:
            raise RuntimeError("NodeWatch is not started")
        while not condition():
            changed = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait({changed, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                changed.cancel()
                await self._task

    async def _read(self) -> None:
        while True:
            records = await self._log.getmany(timeout_ms=_POLL_MS)
            for record in records:
                if record.value is None:
                    continue
                try:
                    self._view.apply(decode_reports(record.value), time.monotonic())
                except FormatError as error:
                    _log.warning("record %d of %s is skipped: %s", record.offset, REPORTS, error)
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


def serving_nodes(watch: NodeWatch, app: str, version: str | None) -> list[str]:
    """Ready nodes with actors of the app (in that version), as `cluster/node`."""
    return [
        report.key
        for report in watch.joined()
        if any(actor.app == app and version in (None, actor.version) for actor in report.actors or ())
    ]


async def wait_served(settings: KafkaSettings, app: str, version: str, *, timeout_seconds: float) -> NodeWatch:
    """Until a node serves that version of the app; raises LaunchError when none does in time."""
    watch = NodeWatch(settings, since_seconds=_REPORT_MEMORY_SECONDS)
    await watch.start()
    try:
        async with asyncio.timeout(timeout_seconds):
            await watch.wait_until(lambda: bool(serving_nodes(watch, app, version)))
    except TimeoutError as error:
        reasons = [f"{node.report.key}: {node.report.reason}" for node in watch.nodes() if node.report.reason]
        raise LaunchError(
            f"no actor of {app} {version} is ready after {timeout_seconds:g} s; "
            + ("; ".join(reasons) if reasons else "see `rayline status` and the gateways' logs")
        ) from error
    finally:
        await watch.close()
    return watch


async def wait_lanes(settings: KafkaSettings, app: str, *, timeout_seconds: float) -> None:
    """Until lanes own all partitions of the app; raises LaunchError when they do not in time."""
    try:
        await wait_claimed(settings=settings, group_id=group_id(app), topic=requests_topic(app), timeout_seconds=timeout_seconds)
    except TimeoutError as error:
        raise LaunchError(
            f"no lane took over the partitions of {app} within {timeout_seconds:g} s; see `rayline status` and the lanes' logs"
        ) from error
