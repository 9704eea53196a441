"""The executor of this machine: clusters as child processes of the launcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from deploy.local.cluster import ClusterTools, LocalCluster
from deploy.local.launch import ProcessLauncher
from deploy.local.supervisor import Supervisor
from rayline.clusters import ActualCluster, ClusterOrder


class LocalExecutor:
    """An `Executor` on this machine.

    Owns the clusters, not their processes (the supervisor does). Life: `prepare`, `apply` any number of times ->
    `begin_closing` -> the supervisor ends the processes -> `close`.
    """

    def __init__(
        self,
        *,
        identity: str,
        supervisor: Supervisor,
        launcher: ProcessLauncher,
        on_loss: Callable[[str], None],
        on_event: Callable[[str], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._identity = identity
        self._on_change: Callable[[], None] = lambda: None
        self._tools = ClusterTools(supervisor, launcher, self._changed, on_loss, on_event, on_crash)
        self._clusters: dict[str, LocalCluster] = {}

    @property
    def identity(self) -> str:
        return self._identity

    def listen(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def prepare(self, clusters: Sequence[str]) -> None:
        """Start heads that the first orders will find, while what gives the orders is itself still starting."""
        for name in clusters:
            self._cluster(name).prepare()

    def apply(self, order: ClusterOrder) -> None:
        self._cluster(order.cluster).apply(order)

    def actual(self) -> list[ActualCluster]:
        return [actual for cluster in self._clusters.values() if (actual := cluster.actual()) is not None]

    def addresses(self) -> dict[str, str]:
        """`host:port` of each cluster's head; empty where it does not answer yet."""
        return {name: cluster.address for name, cluster in self._clusters.items()}

    def begin_closing(self) -> None:
        """From now on nothing is started."""
        for cluster in self._clusters.values():
            cluster.begin_closing()

    async def close(self) -> None:
        """Until nothing is being started any more."""
        await asyncio.gather(*(cluster.close() for cluster in self._clusters.values()))

    def _cluster(self, name: str) -> LocalCluster:
        if name not in self._clusters:
            self._clusters[name] = LocalCluster(name=name, executor=self._identity, tools=self._tools)
        return self._clusters[name]

    def _changed(self) -> None:
        self._on_change()
