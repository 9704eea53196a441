"""A pod's agent drains its actors: nothing finished is lost, nothing unfinished is waited for beyond the grace period."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rayline.errors import WireError
from rayline.jobs import ContentType
from rayline.reports import ActorEndpoint
from rayline.wire import BatchHead, DrainOrder, Verdict, encode_request
from workers.channel import FlightChannel
from workers.feature_server import FeatureServer
from workers.job_gauge import JobGauge, read_gauge
from workers.pod_actors import HAND_BACK_SECONDS, PodActor, PodWork, drain_actor, read_pod_actors, read_pod_work

Serve = Callable[..., FeatureServer]


class Lane:
    """One batch of the lane's side, and what came back for it."""

    def __init__(self, port: int) -> None:
        self.values: dict[int, Any] = {}
        self._channel = FlightChannel(
            ActorEndpoint(app="app", version="v1", name="n", host="127.0.0.1", port=port, slots=2, instance="i"),
            app="app",
            version="v1",
            token="t",
        )

    def send(self, *payloads: Any) -> asyncio.Task[Any]:
        request = encode_request([msgpack.packb(payload) for payload in payloads])
        head = BatchHead("b", ContentType.MSGPACK, 20_000)
        return asyncio.create_task(self._channel.exchange(request, head, timeout_seconds=20, on_chunk=self._note))

    def _note(self, answer: Any, _: Any) -> None:
        self.values.update({row["index"]: msgpack.unpackb(row["value"]) for row in answer.to_pylist()})

    def close(self) -> None:
        self._channel.close()


async def drain(server: FeatureServer, *, hand_back_seconds: float, noticed: threading.Event | None = None) -> bool:
    actor = PodActor(pid=os.getpid(), host="127.0.0.1", port=server.port, app="app", version="v1")
    seen = noticed or threading.Event()
    return await asyncio.to_thread(drain_actor, actor, token="t", hand_back_seconds=hand_back_seconds, on_notice=seen.set)


async def test_a_call_that_outlasts_the_grace_period_is_handed_back_with_what_its_batch_had_finished(serve: Serve) -> None:
    running, release = threading.Event(), threading.Event()

    def feature(payload: int) -> int:
        if payload == 2:
            running.set()
            release.wait(20)
        return payload * 10

    server = serve(feature)
    lane = Lane(server.port)
    sending = lane.send(1, 2, 3)
    assert await asyncio.to_thread(running.wait, 10)
    started = time.monotonic()
    assert await drain(server, hand_back_seconds=0.3)
    assert 0.25 < time.monotonic() - started < 0.3 + HAND_BACK_SECONDS
    head = await sending
    assert head.verdict is Verdict.DRAINING
    assert "leaving" in head.reason
    assert lane.values == {0: 10}
    release.set()
    lane.close()


async def test_a_call_that_returns_in_time_is_answered_and_the_rest_of_its_batch_handed_back(serve: Serve) -> None:
    running, release = threading.Event(), threading.Event()

    def feature(payload: int) -> int:
        if payload == 2:
            running.set()
            release.wait(20)
        return payload * 10

    server = serve(feature)
    lane = Lane(server.port)
    sending = lane.send(1, 2, 3)
    assert await asyncio.to_thread(running.wait, 10)
    noticed = threading.Event()
    draining = asyncio.create_task(drain(server, hand_back_seconds=15, noticed=noticed))
    assert await asyncio.to_thread(noticed.wait, 10)
    release.set()
    assert await draining
    assert (await sending).verdict is Verdict.DRAINING
    assert lane.values == {0: 10, 1: 20}
    lane.close()


async def test_a_batch_that_runs_as_one_call_may_finish(serve: Serve) -> None:
    running, release = threading.Event(), threading.Event()

    def feature(payloads: list[int]) -> list[int]:
        running.set()
        release.wait(20)
        return payloads

    server = serve(feature, call="batch")
    lane = Lane(server.port)
    sending = lane.send(1, 2)
    assert await asyncio.to_thread(running.wait, 10)
    noticed = threading.Event()
    draining = asyncio.create_task(drain(server, hand_back_seconds=15, noticed=noticed))
    assert await asyncio.to_thread(noticed.wait, 10)
    release.set()
    assert await draining
    assert (await sending).verdict is Verdict.DONE
    assert lane.values == {0: 1, 1: 2}
    lane.close()


async def test_an_idle_actor_is_drained_at_once(serve: Serve) -> None:
    started = time.monotonic()
    assert await drain(serve(lambda payload: payload), hand_back_seconds=15)
    assert time.monotonic() - started < 5


async def test_an_actor_that_is_gone_does_not_hold_up_the_drain(serve: Serve) -> None:
    server = serve(lambda payload: payload)
    port = server.port
    server.shutdown()
    actor = PodActor(pid=os.getpid(), host="127.0.0.1", port=port, app="app", version="v1")
    assert not await asyncio.to_thread(
        drain_actor, actor, token="t", hand_back_seconds=0.2, on_notice=lambda: pytest.fail("nobody is there")
    )


async def test_jobs_without_an_answer_are_counted(serve: Serve) -> None:
    running, release = threading.Event(), threading.Event()

    def feature(payload: int) -> int:
        if payload == 2:
            running.set()
            release.wait(20)
        return payload

    server = serve(feature)
    lane = Lane(server.port)
    assert server.jobs_here() == 0
    sending = lane.send(1, 2, 3)
    assert await asyncio.to_thread(running.wait, 10)
    assert server.jobs_here() == 2
    release.set()
    await sending
    assert server.jobs_here() == 0
    lane.close()


@pytest.mark.parametrize("wrong", ["soon", None, True, float("inf")])
def test_a_drain_order_without_a_time_is_refused(wrong: object) -> None:
    order = DrainOrder("app", "v1", 5.0, "t")
    assert DrainOrder.unpack(order.pack()) == order
    with pytest.raises(WireError):
        DrainOrder.unpack(msgpack.packb({"v": 1, **asdict(order), "hand_back_ms": wrong}))


def test_the_work_of_a_pod_is_the_sum_of_its_living_actors(tmp_path: Path) -> None:
    assert read_pod_work(str(tmp_path)) == PodWork(0, 0)
    gauge = JobGauge(tmp_path / f"actor-{os.getpid()}")
    assert read_pod_work(str(tmp_path)) == PodWork(1, 0)
    gauge.show(1234)
    gauge.show(7)
    JobGauge(tmp_path / "actor-4194304").show(50)
    (tmp_path / "loading-1").touch()
    assert read_pod_work(str(tmp_path)) == PodWork(1, 7)
    assert read_gauge(str(tmp_path / "nowhere")) is None
    assert read_pod_work(str(tmp_path / "nowhere")) == PodWork(0, None)


def test_an_actor_that_does_not_tell_makes_the_whole_unknown(tmp_path: Path) -> None:
    (tmp_path / f"actor-{os.getpid()}.jobs").write_text("what?")
    assert read_pod_work(str(tmp_path)) == PodWork(1, None)


def test_what_a_dead_actor_left_is_removed(tmp_path: Path) -> None:
    entry = {"pid": 4194304, "host": "127.0.0.1", "port": 1, "app": "app", "version": "v1"}
    (tmp_path / "actor-4194304.json").write_text(json.dumps(entry))
    JobGauge(tmp_path / "actor-4194304").show(3)
    assert read_pod_actors(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_an_actor_that_ends_alone_says_nothing_against_its_node_until_the_node_goes(serve: Serve) -> None:
    """BUSY: lanes go on with the node's other actors; DRAINING: they leave the node."""
    server = serve(lambda payload: payload)
    lane = Lane(server.port)
    server.drain(5.0, leaving=False)
    assert (await lane.send(1)).verdict is Verdict.BUSY
    server.drain(5.0)
    assert (await lane.send(1)).verdict is Verdict.DRAINING
    lane.close()
