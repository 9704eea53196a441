"""Where a plan is played: a platform of our own, or one that runs already."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from deploy.local.state import StateFolder
from deploy.node_watch import NodeWatch, serving_nodes
from rayline.bus import KafkaSettings
from rayline.errors import LaunchError

_MEMORY_SECONDS: Final = 5.0


class Stage(Protocol):
    """What chaos needs of a platform; `deploy.local.platform.LocalPlatform` is one."""

    @property
    def folder(self) -> StateFolder: ...

    @property
    def settings(self) -> KafkaSettings: ...

    @property
    def nodes(self) -> NodeWatch: ...

    async def wait_app_ready(
        self, app: str, *, version: str | None = None, nodes: int = 1, timeout_seconds: float = 120.0
    ) -> None:
        """Until actors of the app are ready on so many nodes; raises LaunchError when that takes too long."""


class RunningPlatform:
    """A platform that somebody else started.

    Owns a reader of its node reports, and nothing of it. Life: an async context manager.
    """

    def __init__(self, folder: StateFolder) -> None:
        """Raises LaunchError when nothing runs there."""
        state = folder.read()
        if state is None or not state.ready or state.launcher.process() is None:
            raise LaunchError(f"no platform is up in {folder.path}: start one with `rayline up`, or leave out --state-dir")
        self.folder = folder
        self.pods = sum(record.role == "pod" for record in state.processes)
        self.settings = KafkaSettings.from_env(folder.read_kafka())
        self.nodes = NodeWatch(self.settings, since_seconds=_MEMORY_SECONDS)

    async def __aenter__(self) -> RunningPlatform:
        await self.nodes.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.nodes.close()

    async def wait_app_ready(
        self, app: str, *, version: str | None = None, nodes: int = 1, timeout_seconds: float = 120.0
    ) -> None:
        """Until actors of the app are ready on so many nodes; raises LaunchError when that takes too long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.nodes.wait_until(lambda: len(serving_nodes(self.nodes, app, version)) >= nodes)
        except TimeoutError as error:
            raise LaunchError(
                f"waited {timeout_seconds:g} s for {app} to be ready on {nodes} node(s); logs are in {self.folder.logs}"
            ) from error
