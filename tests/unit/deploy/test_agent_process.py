"""The agent of a pod learns the apps, also after a broker that was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from deploy import agent_process
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings
from rayline.errors import BrokerUnavailable

SPEC = AppSpec("app", "1", "/nowhere", "m:f")


class Registry:
    """Away the first two times."""

    opened = 0

    def __init__(self, _: KafkaSettings) -> None: ...

    async def __aenter__(self) -> Registry:
        Registry.opened += 1
        if Registry.opened <= 2:
            raise BrokerUnavailable("away")
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def changes(self) -> AsyncIterator[dict[str, AppSpec]]:
        yield {"app": SPEC}
        await asyncio.Event().wait()


@dataclass
class Agent:
    """Remembers what it was told."""

    told: asyncio.Event = field(default_factory=asyncio.Event)
    apps: list[AppSpec] = field(default_factory=list)

    def set_apps(self, apps: list[AppSpec]) -> None:
        self.apps = apps
        self.told.set()


async def test_apps_are_known_as_soon_as_the_broker_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_process, "AppRegistry", Registry)
    monkeypatch.setattr(agent_process, "_APPS_RETRY_SECONDS", 0.0)
    agent = Agent()
    following = asyncio.create_task(agent_process._follow_apps(KafkaSettings("127.0.0.1:1"), agent))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await agent.told.wait()
    following.cancel()
    await asyncio.wait({following})
    assert (agent.apps, Registry.opened) == ([SPEC], 3)
