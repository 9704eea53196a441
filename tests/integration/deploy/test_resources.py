"""Resources on a real broker: kill one, add one, kill all; what a lane sees of it, and how many records it takes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from deploy.resource_process import ResourceService
from rayline.bus import KafkaSettings, Publisher, ensure_topics
from rayline.reports import ActorEndpoint, NodeReport, NodeState, encode_reports
from rayline.topics import BEATS_PARTITION, CHANGES_PARTITION, REPORTS, platform_topics
from scheduler.listener import Heard, Listener
from scheduler.node_feed import NodeFeed
from scheduler.resource import Resource
from scheduler.view import SUSPECT_AFTER_SECONDS, View
from tests.support.names import fresh
from tests.support.routable import routable

pytestmark = pytest.mark.integration

NODES = 6


class Pods:
    """Agents of one cluster: each beats, by default once a second."""

    def __init__(self, publisher: Publisher, cluster: str) -> None:
        self._publisher = publisher
        self.cluster = cluster
        self.seq = 0
        self.frozen: set[str] = set()
        self.names = [f"n{number}" for number in range(NODES)]

    def report(self, name: str, state: NodeState = NodeState.READY, **fields: object) -> NodeReport:
        actors = (ActorEndpoint("app", "1", name, "h", 1, 2, f"{self.cluster}-{name}"),)
        return NodeReport(self.cluster, name, 1, self.seq, state, 1.0, actors=actors, beat=True, **fields)  # type: ignore[arg-type]

    async def beat(self) -> None:
        while True:
            self.seq += 1
            for name in self.names:
                if name not in self.frozen:
                    await self.say(self.report(name), BEATS_PARTITION)
            await asyncio.sleep(1.0)

    async def say(self, report: NodeReport, partition: int) -> None:
        value = encode_reports([report])
        await self._publisher.publish(REPORTS, key=report.key.encode(), value=value, partition=partition)


class Reader:
    """What a lane has of it: the feed, and a view."""

    def __init__(self, settings: KafkaSettings, group: str) -> None:
        self.view = View()
        self.told = 0
        self.heard_at: dict[str, float] = {}
        self.feed = NodeFeed(settings=settings, listener=Listener(groups=(group,)), take=self._take)

    def _take(self, heard: Heard) -> None:
        self.told += heard.source is not None
        self.view.apply(heard.reports, heard.at, ears=heard.ears)

    def keys(self, cluster: str) -> set[str]:
        return {key for key in routable(self.view, "app", "1", time.monotonic()) if key.startswith(f"{cluster}/")}


@asynccontextmanager
async def reading(settings: KafkaSettings, group: str) -> AsyncIterator[Reader]:
    reader = Reader(settings, group)
    async with reader.feed:
        task = asyncio.create_task(reader.feed.run())
        try:
            yield reader
        finally:
            task.cancel()
            await asyncio.wait({task})


class Running:
    """Resources by name; `kill` ends one without a word, as SIGKILL does."""

    def __init__(self, settings: KafkaSettings, group: str, cluster: str) -> None:
        self._settings, self._group, self._cluster = settings, group, cluster
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str) -> ResourceService:
        resource = Resource(name=name, group=self._group, clusters=[self._cluster])
        service = ResourceService(settings=self._settings, resource=resource)
        self._tasks[name] = asyncio.create_task(service.run(asyncio.Event()), name=name)
        return service

    async def kill(self, *names: str) -> None:
        tasks = [self._tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def platform(settings: KafkaSettings) -> AsyncIterator[tuple[Pods, Running, str]]:
    await ensure_topics(settings, [replace(spec, replication_factor=1) for spec in platform_topics()])
    group = fresh("group")
    async with Publisher(settings=settings) as publisher:
        pods = Pods(publisher, fresh("cluster"))
        running = Running(settings, group, pods.cluster)
        beating = asyncio.create_task(pods.beat())
        try:
            yield pods, running, group
        finally:
            beating.cancel()
            await asyncio.wait({beating})
            if running._tasks:
                await running.kill(*running._tasks)


async def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_kill_one_add_one_kill_all(kafka: KafkaSettings) -> None:
    async with platform(kafka) as (pods, running, group), reading(kafka, group) as lane:
        everybody = {f"{pods.cluster}/{name}" for name in pods.names}
        services = [running.start(name) for name in ("r1", "r2", "r3")]
        await until(lambda: lane.told >= 3 and lane.keys(pods.cluster) == everybody, 20, "three resources tell of all nodes")

        await running.kill("r1")
        deadline = time.monotonic() + SUSPECT_AFTER_SECONDS + 1.5
        while time.monotonic() < deadline:
            assert lane.keys(pods.cluster) == everybody, "one resource less is nothing to a lane"
            assert not lane.view.stale(time.monotonic())
            await asyncio.sleep(0.1)

        began = time.monotonic()
        added = running.start("r4")
        peers = services[1].resource.view
        await until(lambda: len(added.resource.view.nodes()) == NODES, 10, "a new one knows all nodes")
        took = time.monotonic() - began
        assert {node.key for node in peers.nodes()} == {node.key for node in added.resource.view.nodes()}
        assert took < 1.0, f"a new resource knew everything after {took:.2f} s"

        await running.kill("r2", "r3", "r4")
        await until(lambda: lane.view.stale(time.monotonic()), 5, "without resources the view is stale")
        await asyncio.sleep(SUSPECT_AFTER_SECONDS)
        assert lane.keys(pods.cluster) == everybody, "and the last one stays in force"
        began = time.monotonic()
        await pods.say(pods.report("n0", NodeState.DRAINING, reason="notice"), CHANGES_PARTITION)
        await until(lambda: lane.keys(pods.cluster) == everybody - {f"{pods.cluster}/n0"}, 5, "a notice is heard all the same")
        pods.names.remove("n0")
        assert time.monotonic() - began < 0.3

        running.start("r5")
        await until(lambda: not lane.view.stale(time.monotonic()), 10, "a resource is back")
        assert lane.keys(pods.cluster) == everybody - {f"{pods.cluster}/n0"}


async def test_a_frozen_pod_is_suspect_after_three_beats_and_a_notice_is_news_at_once(kafka: KafkaSettings) -> None:
    async with platform(kafka) as (pods, running, group), reading(kafka, group) as lane:
        service = running.start("r1")
        await until(lambda: lane.told > 0 and len(lane.keys(pods.cluster)) == NODES, 20, "all nodes are known")
        frozen = f"{pods.cluster}/n0"
        pods.frozen.add("n0")
        frozen_at = time.monotonic()
        await until(lambda: frozen not in lane.keys(pods.cluster), 10, "a frozen pod gets no new work")
        assert time.monotonic() - frozen_at < SUSPECT_AFTER_SECONDS + 0.5
        pods.frozen.clear()
        await until(lambda: frozen in lane.keys(pods.cluster), 5, "it is back when it beats again")

        delays = []
        for name in pods.names[1:]:
            began = time.monotonic()
            await pods.say(pods.report(name, NodeState.DRAINING, reason="notice"), CHANGES_PARTITION)
            await until(lambda key=f"{pods.cluster}/{name}": key not in lane.keys(pods.cluster), 5, "notice")  # type: ignore[misc]
            delays.append(time.monotonic() - began)
        assert max(delays) < 0.3, delays
        statistics = service.resource.statistics()
        assert statistics.published < statistics.rounds + 3 * NODES, "one record a round, and one for each change at most"
        assert not math.isinf(service.resource.view.ears)
