"""A pod starts Ray once its environments are in place; neither a notice nor one that takes too long is held up by them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from workers import agent as agents
from workers.agent import Agent, PodOptions
from workers.notices import Notice
from workers.ports import PortBlock


class Environments:
    """In place when it is said so."""

    def __init__(self) -> None:
        self.in_place = asyncio.Event()

    async def settled(self) -> None:
        await self.in_place.wait()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    options = PodOptions(cluster="c1", pod="p1", address="127.0.0.1:1", token_path=tmp_path / "token")
    nowhere: Any = None
    return Agent(options=options, publisher=nowhere)


def begin(agent: Agent, environments: Any) -> asyncio.Task[None]:
    return asyncio.create_task(agent._await_environments(environments))


async def test_ray_waits_until_they_are_in_place_or_were_tried(agent: Agent) -> None:
    environments = Environments()
    waiting = begin(agent, environments)
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    environments.in_place.set()
    await asyncio.wait_for(waiting, 20)


async def test_a_notice_ends_the_wait(agent: Agent) -> None:
    waiting = begin(agent, Environments())
    agent.give_notice(Notice("the machine goes", None))
    await asyncio.wait_for(waiting, 20)


async def test_one_long_download_keeps_the_others_waiting_no_longer_than_that(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "ENVIRONMENTS_SECONDS", 0.05)
    await asyncio.wait_for(begin(agent, Environments()), 20)


async def test_the_workers_of_a_pods_ray_do_not_see_what_opens_the_platform(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(agents, "PodRay", lambda **options: given.update(options))
    for name in ("RAYLINE_KAFKA_SASL_PASSWORD", "RAYLINE_CHANNEL_TOKEN", "RAYLINE_PEERS_TOKEN", "RAYLINE_ENV_STORE"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("MINE", "kept")
    agent._start_ray(PortBlock(number=1, lock_fd=-1))
    environment = given["environment"]
    assert "secret" not in environment.values()
    assert (environment["MINE"], environment["RAY_AUTH_MODE"]) == ("kept", "token")
