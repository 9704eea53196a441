"""Readers that start together: of a start that fails nothing stays open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rayline.bus import KafkaSettings
from rayline.errors import BrokerUnavailable
from rayline.topics import VIEW
from scheduler import node_feed
from scheduler.listener import Listener
from scheduler.node_feed import NodeFeed


class Reader:
    """Stands for a reader of a topic: that of the view finds no broker, the others' brokers answer when they may."""

    made: list[Reader]
    may_answer: asyncio.Event

    def __init__(self, *, topic: str, **_: Any) -> None:
        self._topic = topic
        self.open = True
        self.made.append(self)

    async def start(self) -> None:
        if self._topic == VIEW:
            raise BrokerUnavailable("no broker answers")
        await self.may_answer.wait()

    async def stop(self) -> None:
        self.open = False

    async def __aenter__(self) -> Reader:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Reader]:
    Reader.made, Reader.may_answer = [], asyncio.Event()
    monkeypatch.setattr(node_feed, "CompactedLog", Reader)
    return Reader.made


def new_feed() -> NodeFeed:
    return NodeFeed(settings=KafkaSettings("127.0.0.1:1"), listener=Listener(groups=("g",)), take=lambda _: None)


async def test_readers_whose_broker_answers_after_another_gave_up_do_not_stay_open(made: list[Reader]) -> None:
    with pytest.raises(BrokerUnavailable):
        await new_feed().start()
    Reader.may_answer.set()
    await asyncio.wait_for(asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task())), 5)
    assert [reader.open for reader in made] == [False] * 3


async def test_a_start_that_is_given_up_leaves_none_open(made: list[Reader]) -> None:
    starting = asyncio.create_task(new_feed().start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert [reader.open for reader in made] == [False] * 3
