"""The launcher's own side of Kafka: what it reads of nodes, apps and clusters, and what it does about them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from deploy.app_registry import AppRegistry
from deploy.cluster_log import ClusterLog, want_clusters
from deploy.executor import Executor, ExecutorLoop
from deploy.local.lanes import Lanes
from deploy.local.losses import Losses
from deploy.local.startup_log import StartupLog
from deploy.node_watch import NodeWatch
from rayline.bus import KafkaSettings, Publisher
from rayline.clusters import ClusterBook, DesiredCluster
from rayline.waits import together


class Control:
    """Owns the readers of node reports, apps and clusters, and one publisher. Does not own what it drives.

    Life: `start` -> `want` -> `run` as a task -> `close`.
    """

    def __init__(self, settings: KafkaSettings, *, say: StartupLog) -> None:
        self._say = say
        self.nodes = NodeWatch(settings)
        self._publisher = Publisher(settings=settings, client_id="rayline-launcher")
        self.registry = AppRegistry(settings)
        self._clusters = ClusterLog(settings, client_id="rayline-launcher-clusters")
        self._losses = Losses(publisher=self._publisher, watch=self.nodes, book=self._clusters.book, say=say.say)
        self._closing = AsyncExitStack()

    @property
    def book(self) -> ClusterBook:
        """What `rayline.clusters` says."""
        return self._clusters.book

    async def start(self) -> None:
        """Connect everything together; raises BusError when the platform's topics do not exist."""
        await together(
            self._closing.enter_async_context(self._publisher),
            self._closing.enter_async_context(self.registry),
            self._closing.enter_async_context(self._clusters),
            self.nodes.start(),
        )

    async def close(self) -> None:
        """Safe after a failed start."""
        await self._closing.aclose()
        await self.nodes.close()

    def lost(self, name: str) -> None:
        """A pod has ended, or the head of the cluster of that name."""
        self._losses.ended(name)

    async def want(self, desired: list[DesiredCluster]) -> None:
        """Say which clusters there should be; those of an earlier life that are not among them go."""
        book = await self._clusters.read()
        remove = sorted(book.desired.keys() - {want.cluster for want in desired})
        await want_clusters(self._publisher, desired, remove=remove)
        # Whoever waits for what is wanted need not wait until it is read back.
        book.desired = {want.cluster: want for want in desired}

    async def run(self, *, executor: Executor, lanes: Lanes) -> None:
        """Carry orders out, keep lanes for every app, tell of losses; raises RaylineError when one of them cannot go on."""
        loop = ExecutorLoop(executor=executor, log=self._clusters, publisher=self._publisher)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(loop.run(), name="executor")
            tasks.create_task(lanes.run(), name="lanes")
            tasks.create_task(self._losses.run(), name="losses")
