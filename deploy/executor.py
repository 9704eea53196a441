"""What carries the keeper's orders out: an interface with one implementation for each kind of place, and the loop around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from deploy.cluster_log import ClusterLog, write_entries
from rayline.bus import Publisher
from rayline.clusters import ActualCluster, ClusterOrder, ExecutorIdentity


class Executor(Protocol):
    """Starts and stops heads and pods. Decides nothing; a name that has run once is never started again."""

    @property
    def identity(self) -> str:
        """One life of this executor; what it starts does not outlive it unknown."""

    def apply(self, order: ClusterOrder) -> None:
        """Begin to make what runs as ordered; returns at once. An order that is known already changes nothing."""

    def actual(self) -> Sequence[ActualCluster]:
        """What there is of each cluster that was ever ordered."""

    def listen(self, on_change: Callable[[], None]) -> None:
        """`on_change` is called whenever `actual` has changed."""


class ExecutorLoop:
    """Between `rayline.clusters` and one executor: orders in, what became of them out.

    Owns neither of its parts. Only orders for this life of the executor, and of the newest epoch in the log, ever reach it.
    Life: `run` until cancelled.
    """

    def __init__(self, *, executor: Executor, log: ClusterLog, publisher: Publisher) -> None:
        self._executor = executor
        self._log = log
        self._publisher = publisher
        self._dirty = asyncio.Event()
        self._told: dict[str, ActualCluster] = {}
        executor.listen(self._dirty.set)

    async def run(self) -> None:
        """Say who we are, then follow; raises BusError when Kafka refuses."""
        await write_entries(self._publisher, ExecutorIdentity(self._executor.identity))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="orders")
            tasks.create_task(self._tell(), name="what became of them")

    async def _follow(self) -> None:
        async for book in self._log.changes():
            for order in book.orders.values():
                if order.executor == self._executor.identity:
                    self._executor.apply(order)

    async def _tell(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            for actual in self._executor.actual():
                if self._told.get(actual.cluster) != actual:
                    await write_entries(self._publisher, actual)
                    self._told[actual.cluster] = actual
