"""What the nodes of all clusters report, as a view that one can wait on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from rayline.bus import KafkaSettings
from rayline.bus.progress import wait_claimed
from rayline.errors import LaunchError
from rayline.reports import NodeReport, NodeState
from rayline.topics import group_id, requests_topic
from rayline.view_record import DEFAULT_GROUP
from scheduler.listener import Direct, Heard, Listener
from scheduler.node_feed import NodeFeed
from scheduler.view import NodeView, View

_STAYING: Final = (NodeState.STARTING, NodeState.READY)
_REPORT_MEMORY_SECONDS: Final = 5.0


class NodeWatch:
    """Follows what nodes report, and what resources tell of them, from a few seconds before its start.

    Owns the readers, their task, and the merged view. Life: `start` -> `nodes`, `wait_until` -> `close`; what ends the readers
    comes out of `wait_until` and `caught_up`.
    """

    def __init__(self, settings: KafkaSettings, *, since_seconds: float = 0.0, group: str = DEFAULT_GROUP) -> None:
        self.view = View()
        self._feed = NodeFeed(
            settings=settings,
            listener=Listener(groups=(group,), direct=Direct.ALWAYS if group == DEFAULT_GROUP else Direct.UNTIL_TOLD),
            take=self._take,
            memory_seconds=since_seconds,
            client_id="rayline-node-watch",
        )
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; raises BusError when the platform's topics do not exist."""
        await self._feed.start()
        self._task = asyncio.create_task(self._feed.run(), name="node watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._feed.close()

    async def caught_up(self) -> None:
        """Until all is read that stood in the topics when the watch began."""
        await self._or_end(self._feed.caught_up.wait())

    def nodes(self) -> list[NodeView]:
        return self.view.nodes()

    def joined(self) -> list[NodeReport]:
        """Nodes that their cluster's gateway sees and that beat, with actors or without, and that are not leaving."""
        horizon = self.view.horizon(time.monotonic())
        return [
            node.report
            for node in self.view.nodes()
            if node.report.state in _STAYING and node.report.actors is not None and not node.suspect(horizon)
        ]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds; it is asked again after each report."""
        while not condition():
            await self._or_end(self._changed.wait())

    async def _or_end(self, event: Awaitable[object]) -> None:
        if self._task is None:
            raise RuntimeError("NodeWatch is not started")
        waiting = asyncio.ensure_future(event)
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            await self._task

    def _take(self, heard: Heard) -> None:
        self.view.apply(heard.reports, heard.at, ears=heard.ears)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def serving_nodes(watch: NodeWatch, app: str, version: str | None) -> list[str]:
    """Ready nodes with actors of the app (in that version), as `cluster/node`."""
    return [
        report.key
        for report in watch.joined()
        if any(actor.app == app and version in (None, actor.version) for actor in report.actors or ())
    ]


async def joined_nodes(settings: KafkaSettings) -> list[str]:
    """The nodes that are in their clusters now, as `cluster/node`."""
    watch = NodeWatch(settings, since_seconds=_REPORT_MEMORY_SECONDS)
    await watch.start()
    try:
        await watch.caught_up()
        return sorted(report.key for report in watch.joined())
    finally:
        await watch.close()


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
