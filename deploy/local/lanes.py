"""Lanes for every deployed app: follows `rayline.apps` and starts or stops processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from deploy.app_registry import AppRegistry
from deploy.local.child import Running
from deploy.local.supervision import Role
from deploy.local.supervisor import ChildSpec, Supervisor
from rayline.app_spec import AppSpec

_LANE_GRACE_SECONDS = 15.0


class Lanes:
    """Owns which lanes there should be: `per_app` of each app, with static names (`lane-<app>-<n>`), so that one that
    comes back takes its partitions back without a rebalance. Life: `run` until cancelled.
    """

    def __init__(
        self,
        *,
        registry: AppRegistry,
        supervisor: Supervisor,
        per_app: int,
        launch_lane: Callable[[str, str], Awaitable[Running]],
        on_event: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._supervisor = supervisor
        self._per_app = per_app
        self._launch_lane = launch_lane
        self._on_event = on_event
        self._running: set[str] = set()

    async def run(self) -> None:
        """Follow the registry for ever; a lane itself follows the versions of its app."""
        async for apps in self._registry.changes():
            await self._bring_to(apps)

    async def _bring_to(self, apps: dict[str, AppSpec]) -> None:
        for app in sorted(self._running - apps.keys()):
            self._on_event(f"{app}: removed, stopping its lanes")
            await asyncio.gather(*(self._supervisor.stop(name) for name in self._names(app)))
            self._running.discard(app)
        for app in sorted(apps.keys() - self._running):
            self._on_event(f"{app}: version {apps[app].version}, starting {self._per_app} lane(s)")
            for name in self._names(app):
                await self._supervisor.start(
                    ChildSpec(
                        name=name,
                        role=Role.LANE,
                        launch=partial(self._launch_lane, app, name),
                        grace_seconds=_LANE_GRACE_SECONDS,
                    )
                )
            self._running.add(app)

    def _names(self, app: str) -> list[str]:
        return [f"lane-{app}-{number}" for number in range(self._per_app)]
