"""What a process has to say while Kafka does not take it: said again, or counted where it is too much."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rayline.bus import Delivery, KafkaSettings, LogRecord
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.config.watch import MAX_NOTED
from rayline.errors import BusError
from rayline.topics import CONFIG_APPLIED, CONFIG_HISTORY


class Publisher:
    """Takes records of the topics that it is told to take, and keeps what arrived."""

    def __init__(self, *taken: str) -> None:
        self.taken = taken
        self.arrived: list[tuple[str, bytes | None]] = []

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None) -> asyncio.Future[Delivery]:
        return asyncio.ensure_future(self._deliver(topic, value))

    async def _deliver(self, topic: str, value: bytes | None) -> Delivery:
        if topic not in self.taken:
            raise BusError("no broker answers")
        self.arrived.append((topic, value))
        return Delivery(0, 0, 0)

    def noted(self) -> list[int]:
        """The versions of the changes that stand in the log of changes."""
        return [json.loads(value or b"")["version"] for topic, value in self.arrived if topic == CONFIG_HISTORY]


@pytest.fixture
def registrar() -> ConfigWatch:
    who = ProcessIdentity(role=Role.GATEWAY, cluster="a", registrar=True)
    return ConfigWatch(settings=KafkaSettings("127.0.0.1:1"), identity=who)


async def change(watch: ConfigWatch, *versions: int) -> None:
    """Another client than ours sets something."""
    records = [LogRecord(0, version, 0, b"global/log.level", b'"INFO"') for version in versions]
    await watch._take_all(records, live=True)


async def send(watch: ConfigWatch, publisher: Publisher) -> None:
    taken: Any = publisher
    await watch._send(taken)


@pytest.mark.parametrize("taken", [(), (CONFIG_APPLIED,)])
async def test_notes_that_a_broker_did_not_take_are_said_once_more(registrar: ConfigWatch, taken: tuple[str, ...]) -> None:
    await change(registrar, 1)
    with pytest.raises(BusError):
        await send(registrar, Publisher(*taken))
    assert registrar._work.is_set()
    await change(registrar, 2)
    publisher = Publisher(CONFIG_APPLIED, CONFIG_HISTORY)
    await send(registrar, publisher)
    assert publisher.noted() == [1, 2]
    assert {topic for topic, _ in publisher.arrived} == {CONFIG_APPLIED, CONFIG_HISTORY}
    assert registrar.status.unsaid == 0
    publisher.arrived.clear()
    await send(registrar, publisher)
    assert publisher.arrived == []


async def test_notes_that_are_too_many_are_counted(registrar: ConfigWatch) -> None:
    registrar._noted = [b"{}"] * MAX_NOTED

    class MeanwhilePublisher(Publisher):
        """Somebody changes something while it sends."""

        async def _deliver(self, topic: str, value: bytes | None) -> Delivery:
            if not registrar._noted:
                await change(registrar, 1)
            return await super()._deliver(topic, value)

    with pytest.raises(BusError):
        await send(registrar, MeanwhilePublisher())
    assert (len(registrar._noted), registrar.status.unsaid) == (MAX_NOTED, 1)
