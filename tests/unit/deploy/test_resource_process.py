"""The process of a resource: what happened to nodes reaches `rayline.events`, whatever Kafka does meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from deploy.resource_process import ResourceService
from rayline.bus import KafkaSettings
from rayline.errors import BusError
from rayline.events import decode_event
from rayline.reports import NodeReport, NodeState
from rayline.topics import EVENTS
from scheduler.listener import Heard
from scheduler.resource import Resource


class Broker:
    """Takes events unless it is away; `told` is set with each one that is there."""

    def __init__(self) -> None:
        self.away = False
        self.events: list[str] = []
        self.told = asyncio.Event()
        self.refused = asyncio.Event()

    async def publish(self, *_: object, **__: object) -> int:
        return 0

    async def enqueue(self, topic: str, *, value: bytes, **_: object) -> asyncio.Future[int]:
        assert topic == EVENTS
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self.away:
            self.refused.set()
            sent.set_exception(BusError("no broker"))
        else:
            self.events.append(decode_event(value).kind)
            self.told.set()
            sent.set_result(len(self.events))
        return sent


async def test_events_that_kafka_did_not_take_are_told_again_and_a_new_one_at_once() -> None:
    service = ResourceService(settings=KafkaSettings(bootstrap_servers="127.0.0.1:1"), resource=Resource(name="r1"))
    broker: Any = Broker()
    broker.away = True
    now = asyncio.get_running_loop().time()

    def tell(seq: int, state: NodeState) -> None:
        service._take(Heard([NodeReport("c", "n", 1, seq, state, beat=True)], now, now))

    tell(1, NodeState.READY)
    service._feed.caught_up.set()
    publishing = asyncio.create_task(service._publish(broker))
    async with asyncio.timeout(10):
        await broker.refused.wait()
        broker.away = False
        await broker.told.wait()
        assert broker.events == ["node.joined", "node.ready"]
        broker.told.clear()
        tell(2, NodeState.DRAINING)
        tell(3, NodeState.GONE)
        await broker.told.wait()
    assert broker.events == ["node.joined", "node.ready", "node.notice", "node.gone"]
    publishing.cancel()
    await asyncio.wait({publishing})
