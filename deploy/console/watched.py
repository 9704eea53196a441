"""The platform as it is followed, in the form that pages ask for."""

from __future__ import annotations

import asyncio
import time

from deploy.observation import NodeSeries, Observation, Series, Snapshot


class Watched:
    """Keeps the newest snapshot, so that any number of viewers cost one. Does not own the observation.

    `changed_at` is when the newest came (monotonic seconds).

    Life: `async with` → any use; what ends the observation comes out of `failure`.
    """

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._newest: Snapshot | None = None
        self._version = 0
        self.changed_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watched:
        self._task = asyncio.create_task(self._follow(), name="console watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def failure(self) -> asyncio.Task[None]:
        """Ends only by a fault of our own."""
        if self._task is None:
            raise RuntimeError("Watched is not started")
        return self._task

    @property
    def version(self) -> int:
        return self._version

    def snapshot(self) -> Snapshot:
        return self._newest if self._newest is not None else self._observation.snapshot()

    def series(self, app: str | None, seconds: int) -> Series:
        return self._observation.series(app, seconds)

    def node_series(self, key: str) -> NodeSeries:
        return self._observation.node_series(key)

    async def _follow(self) -> None:
        async for snapshot in self._observation.subscribe():
            self._newest = snapshot
            self._version += 1
            self.changed_at = time.monotonic()
