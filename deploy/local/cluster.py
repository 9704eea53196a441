"""One local Ray cluster: a head, a gateway and pods, kept alive as one unit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.child import Running
from deploy.local.foreign import launch_head
from deploy.local.supervision import Role
from deploy.local.supervisor import ChildSpec, Supervisor
from workers.cluster import LocalHead

_POD_GRACE_SECONDS: Final = 12.0
_GATEWAY_GRACE_SECONDS: Final = 10.0
_HEAD_GRACE_SECONDS: Final = 30.0


class Cluster:
    """Owns which processes belong to a cluster, and the names of its pods (never used twice). The supervisor owns the processes.

    Life: `build` -> `replace_pod` for each that is gone -> `discard` and `build` again when the head is gone.
    """

    def __init__(
        self,
        *,
        name: str,
        token_path: Path,
        log_path: Path,
        pods: int,
        supervisor: Supervisor,
        launch: Callable[..., Awaitable[Running]],
        cpus_per_pod: float,
    ) -> None:
        """`launch(name, role, cluster, *arguments)` starts a `rayline` process."""
        self.name = name
        self.token_path = token_path
        self._log_path = log_path
        self._wanted_pods = pods
        self._supervisor = supervisor
        self._launch = launch
        self._cpus_per_pod = cpus_per_pod
        self._address = ""
        self._pods_made = 0
        self._built = False

    @property
    def address(self) -> str:
        """`host:port` of the head; empty while there is none."""
        return self._address

    async def build(self) -> None:
        """Head first; when it answers, gateway and pods together."""
        self.token_path.parent.mkdir(parents=True, exist_ok=True)
        head = LocalHead(cluster=self.name, token_path=self.token_path, log_path=self._log_path)
        name = f"{self.name}-head"
        await self._supervisor.start(
            ChildSpec(
                name=name,
                role=Role.HEAD,
                launch=partial(launch_head, head, name=name, cluster=self.name, log_path=self._log_path),
                cluster=self.name,
                grace_seconds=_HEAD_GRACE_SECONDS,
            )
        )
        self._address = head.address
        await asyncio.gather(self._start_gateway(), *(self.add_pod() for _ in range(self._wanted_pods)))
        self._built = True

    async def add_pod(self) -> str:
        """Start one more pod; returns its name."""
        self._pods_made += 1
        name = f"{self.name}-pod-{self._pods_made}"
        options = ("--cluster", self.name, "--pod", name, "--cpus", f"{self._cpus_per_pod:g}", "--address", self.address)
        await self._supervisor.start(
            ChildSpec(
                name=name,
                role=Role.POD,
                launch=partial(self._launch, name, Role.POD, self, "agent", *options),
                cluster=self.name,
                grace_seconds=_POD_GRACE_SECONDS,
            )
        )
        return name

    async def replace_pod(self) -> str | None:
        """Start a pod for one that is gone; None when none is missing, or when a rebuild brings them all."""
        pods = sum(1 for spec in self._supervisor.specs() if spec.cluster == self.name and spec.role is Role.POD)
        return await self.add_pod() if self._built and pods < self._wanted_pods else None

    async def discard(self) -> list[str]:
        """End what is left of gateway and pods; returns the names of the pods."""
        self._address, self._built = "", False
        members = [spec for spec in self._supervisor.specs() if spec.cluster == self.name]
        pods = [spec.name for spec in members if spec.role is Role.POD]
        await asyncio.gather(*(self._supervisor.stop(spec.name) for spec in members))
        return pods

    async def _start_gateway(self) -> None:
        name = f"{self.name}-gateway"
        await self._supervisor.start(
            ChildSpec(
                name=name,
                role=Role.GATEWAY,
                launch=partial(
                    self._launch, name, Role.GATEWAY, self, "gateway", "--cluster", self.name, "--address", self.address
                ),
                cluster=self.name,
                grace_seconds=_GATEWAY_GRACE_SECONDS,
            )
        )
