"""`rayline drain`, `cordon` and `uncordon` against a node that follows the live configuration as a real agent does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.agent_process import _watch_config
from deploy.node_orders import cordon_node, drain_node
from rayline.bus import KafkaSettings, Publisher, ensure_topics
from rayline.config import ProcessIdentity, Role
from rayline.errors import NodeError
from rayline.metrics.board import MetricsBoard
from rayline.reports import NodeState
from rayline.topics import platform_topics
from tests.support.names import fresh
from workers.agent import Agent, PodOptions
from workers.notices import Notice, OperatorOrder
from workers.reporting import Reporter

pytestmark = pytest.mark.integration


class Node:
    """A node without Ray: its agent's reporter, the orders that reach it, and whether it leaves when it is told to."""

    def __init__(self, *, settings: KafkaSettings, publisher: Publisher, pod: str, leaves: bool = True) -> None:
        self.pod = pod
        self.cordons: list[bool] = []
        self.intervals: list[float] = []
        self.order = OperatorOrder()
        self._leaves = leaves
        self._reported = False
        self._drained = asyncio.Event()
        options = PodOptions(cluster="c1", pod=pod, address="", token_path=Path("/nowhere"))
        agent = Agent(options=options, publisher=publisher)
        agent.set_cordoned = self._set_cordoned  # type: ignore[method-assign]
        agent.set_interval = self.intervals.append  # type: ignore[method-assign]
        identity = ProcessIdentity(role=Role.AGENT, cluster="c1", node=pod)
        self.watch = _watch_config(settings, identity, agent=agent, order=self.order, board=MetricsBoard(now=0.0))
        self.reporter = Reporter(
            cluster="c1", node=pod, incarnation=time.time_ns() // 1_000_000, cpus=1, zone=None, publisher=publisher
        )
        self._tasks: set[asyncio.Task[object]] = set()

    def _set_cordoned(self, cordoned: bool) -> None:
        self.cordons.append(cordoned)
        self.reporter.cordoned = cordoned
        if self._reported:
            self._tasks.add(asyncio.ensure_future(self.reporter.tell_again(until=time.monotonic() + 10)))

    async def run(self) -> None:
        await self.watch.start()
        self.order.begin()
        self._reported = True
        await self.reporter.tell(NodeState.READY, None, until=time.monotonic() + 10)
        give: Callable[[Notice], None] = lambda notice: self._tasks.add(asyncio.ensure_future(self._leave(notice)))  # noqa: E731
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watch.run())
            tasks.create_task(self.order.run(give, self._drained))

    async def _leave(self, notice: Notice) -> None:
        await self.reporter.tell(NodeState.DRAINING, notice.reason, until=time.monotonic() + 10)
        if self._leaves:
            await self.reporter.tell(NodeState.GONE, notice.reason, until=time.monotonic() + 10)


@asynccontextmanager
async def node_running(settings: KafkaSettings, *, leaves: bool = True) -> AsyncIterator[Node]:
    await ensure_topics(settings, platform_topics())
    async with Publisher(settings=settings) as publisher:
        node = Node(settings=settings, publisher=publisher, pod=fresh("pod"), leaves=leaves)
        task = asyncio.create_task(node.run())
        try:
            yield node
        finally:
            task.cancel()
            await asyncio.wait({task})


async def ordered(order: Callable[[], object], node: Node) -> object:
    """Give an order as soon as the node has reported itself."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await order()  # type: ignore[misc]
            except NodeError as error:
                if "no node" not in str(error):
                    raise


async def test_a_drain_is_answered_by_the_node_and_waits_for_its_end(kafka: KafkaSettings) -> None:
    async with node_running(kafka) as node:
        answered = await ordered(lambda: drain_node(kafka, node.pod, gone_seconds=20), node)
        assert answered.node == f"c1/{node.pod}"  # type: ignore[attr-defined]
        assert answered.state is NodeState.GONE  # type: ignore[attr-defined]
        with pytest.raises(NodeError, match="gone already"):
            await drain_node(kafka, node.pod, gone_seconds=None)


async def test_a_node_that_does_not_leave_is_an_error_that_names_its_state(kafka: KafkaSettings) -> None:
    async with node_running(kafka, leaves=False) as node:
        with pytest.raises(NodeError, match=r"did not leave within 1 s; it says draining \(rayline drain\)"):
            await ordered(lambda: drain_node(kafka, f"c1/{node.pod}", gone_seconds=1), node)


async def test_a_cordon_is_said_by_the_node_itself_and_lifted_again(kafka: KafkaSettings) -> None:
    async with node_running(kafka) as node:
        await ordered(lambda: cordon_node(kafka, node.pod, cordoned=True), node)
        assert node.cordons[-1]
        await cordon_node(kafka, node.pod, cordoned=False)
        assert not node.cordons[-1]


async def test_an_unknown_node_is_named_with_those_that_are_known(kafka: KafkaSettings) -> None:
    async with node_running(kafka) as node:
        await ordered(lambda: cordon_node(kafka, node.pod, cordoned=True), node)
        with pytest.raises(NodeError, match=f"no node 'c1/{node.pod}x' reports itself.*did you mean `c1/{node.pod}`"):
            await drain_node(kafka, f"c1/{node.pod}x", gone_seconds=None)
