"""What a lane tells of its nodes: again by its interval, and at once when an operator changes what weights follow from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ingest import lane_process
from ingest.lane import Lane
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings
from rayline.lane_record import decode_lane_record
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.versions import VersionWeights

NOWHERE = KafkaSettings("127.0.0.1:1")
IN_FORCE_SECONDS = 1.0


class Topic:
    """Takes the place of the publisher: what was told, and news of it."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []
        self._news = asyncio.Event()

    def __call__(self, **_: Any) -> Topic:
        return self

    async def __aenter__(self) -> Topic:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def publish(self, topic: str, *, key: bytes, value: bytes) -> None:
        record = decode_lane_record(key, value)
        self.told.append({node: facts["weight"] for node, facts in record.nodes.items()})
        self._news.set()

    async def next(self) -> dict[str, float]:
        """The next that is told; raises TimeoutError when a change takes longer than it may."""
        async with asyncio.timeout(IN_FORCE_SECONDS):
            await self._news.wait()
        self._news.clear()
        return self.told[-1]


def heard(lane: Lane, seq: int) -> None:
    lane.heard(
        NodeReport(
            cluster,
            "n",
            1,
            seq,
            NodeState.READY,
            cpus,
            actors=(ActorEndpoint("app", "1", f"x{cluster}", "127.0.0.1", 1, 2, f"i{cluster}"),),
        )
        for cluster, cpus in (("a", 1.0), ("b", 4.0))
    )


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    """Of two nodes, whose weights are recomputed once a minute."""
    spec = AppSpec("app", "1", "/nowhere", "m:f")
    lane = Lane(settings=NOWHERE, spec=spec, instance="0", channels=lambda _: None, result_partitions=1)  # type: ignore[arg-type, return-value]
    lane.set_weight_interval(60.0)
    heard(lane, 1)
    yield lane
    await lane._publisher.close()
    await lane._consumer.stop()


@pytest.fixture
async def topic(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Topic]:
    """Where the lane tells them, and did so once."""
    topic = Topic()
    monkeypatch.setattr(lane_process, "Publisher", topic)
    telling = asyncio.create_task(lane_process._tell_weights(lane, NOWHERE, "0"))
    assert (await topic.next()).keys() == {"a/n", "b/n"}
    yield topic
    telling.cancel()
    await asyncio.wait({telling})


CHANGES: dict[str, Callable[[Lane], None]] = {
    "policy": lambda lane: lane.set_weight_policy("static"),
    "traffic": lambda lane: lane.set_traffic(lambda node: 0.0 if node == "a/n" else 1.0),
    "versions": lambda lane: lane.set_versions(VersionWeights({"1": 0.5}), beside=()),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_what_weights_follow_from_is_told_within_a_second(lane: Lane, topic: Topic, change: str) -> None:
    before = topic.told[-1]
    CHANGES[change](lane)
    assert await topic.next() != before


async def test_a_changed_interval_counts_for_the_wait_that_runs(lane: Lane) -> None:
    looked_at = time.monotonic()
    await lane.weights_due(looked_at)
    waiting = asyncio.create_task(lane.weights_due(looked_at))
    lane.set_weight_interval(0.2)
    async with asyncio.timeout(IN_FORCE_SECONDS):
        await waiting
        await lane.weights_due(looked_at)
    assert time.monotonic() - looked_at >= 0.2
