"""A pod's agent drains its actors: nothing finished is lost, nothing unfinished is waited for beyond the grace period."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import pytest

from rayline.jobs import ContentType
from rayline.reports import ActorEndpoint
from rayline.wire import BatchHead, Verdict, encode_request
from workers.channel import FlightChannel
from workers.drain_port import DRAIN_SUFFIX, DrainPort, read_order
from workers.feature_server import FeatureServer
from workers.job_gauge import Gauged, JobGauge, read_gauge
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
    seen = noticed or threading.Event()
    with TemporaryDirectory() as folder:
        DrainPort(entry=Path(folder, "actor"), server=server)
        return await asyncio.to_thread(drain_actor, actor_of(folder), hand_back_seconds=hand_back_seconds, on_notice=seen.set)


def actor_of(folder: str | Path) -> PodActor:
    return PodActor(pid=os.getpid(), app="app", version="v1", port=Path(folder, "actor").with_suffix(DRAIN_SUFFIX))


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


@pytest.mark.parametrize("socket_file", ["none", "of the dead", "of one that never answers"])
def test_an_actor_that_is_gone_or_frozen_does_not_hold_up_the_drain(tmp_path: Path, socket_file: str) -> None:
    actor = actor_of(tmp_path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if socket_file != "none":
        listener.bind(str(actor.port))
    if socket_file == "of one that never answers":
        listener.listen()
    started = time.monotonic()
    assert not drain_actor(actor, hand_back_seconds=0.2, on_notice=lambda: pytest.fail("nobody is there"))
    assert time.monotonic() - started < 0.2 + HAND_BACK_SECONDS + 1
    listener.close()


class Drained:
    """An actor's server that owes an answer until it is released."""

    def __init__(self) -> None:
        self.orders: list[float] = []
        self.released = threading.Event()

    def drain(self, hand_back_seconds: float) -> None:
        self.orders.append(hand_back_seconds)

    def owes_answers(self) -> bool:
        return not self.released.is_set()


def test_a_second_order_with_less_time_does_not_wait_for_the_first(tmp_path: Path) -> None:
    server = Drained()
    DrainPort(entry=tmp_path / "actor", server=server)
    assert actor_of(tmp_path).port.stat().st_mode & 0o777 == 0o600
    noticed = [threading.Event(), threading.Event()]
    with ThreadPoolExecutor() as threads:
        first = threads.submit(drain_actor, actor_of(tmp_path), hand_back_seconds=30, on_notice=noticed[0].set)
        assert noticed[0].wait(10)
        second = threads.submit(drain_actor, actor_of(tmp_path), hand_back_seconds=20, on_notice=noticed[1].set)
        assert noticed[1].wait(10)
        assert server.orders == [30, 20]
        server.released.set()
        assert first.result(10)
        assert second.result(10)


def test_what_is_no_order_drains_nobody(tmp_path: Path) -> None:
    server = Drained()
    DrainPort(entry=tmp_path / "actor", server=server)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(actor_of(tmp_path).port))
        stranger.send(b"soon")
        assert stranger.recv(10) == b""
    assert server.orders == []


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


@pytest.mark.parametrize(
    ("word", "seconds"),
    [(b"2.500", 2.5), (b"0", 0), (b"soon", None), (b"-1", None), (b"inf", None), (b"\xff", None)],
)
def test_an_order_without_a_time_is_none(word: bytes, seconds: float | None) -> None:
    assert read_order(word) == seconds


def test_the_work_of_a_pod_is_the_sum_of_its_living_actors(tmp_path: Path) -> None:
    assert read_pod_work(str(tmp_path)) == PodWork(0, 0)
    gauge = JobGauge(tmp_path / f"actor-{os.getpid()}")
    assert read_pod_work(str(tmp_path)) == PodWork(1, 0)
    gauge.show(Gauged(1234, 5_000, 70))
    gauge.show(Gauged(7, 6_217, 90))
    JobGauge(tmp_path / "actor-4194304").show(Gauged(50))
    (tmp_path / "loading-1").touch()
    assert read_pod_work(str(tmp_path)) == PodWork(1, 7)
    assert read_gauge(f"{tmp_path}/actor-{os.getpid()}.jobs") == Gauged(7, 6_217, 90)
    assert read_gauge(str(tmp_path / "nowhere")) is None
    assert read_pod_work(str(tmp_path / "nowhere")) == PodWork(0, None)


def test_an_actor_that_does_not_tell_makes_the_whole_unknown(tmp_path: Path) -> None:
    (tmp_path / f"actor-{os.getpid()}.jobs").write_text("what?")
    assert read_pod_work(str(tmp_path)) == PodWork(1, None)


def test_what_a_dead_actor_left_is_removed(tmp_path: Path) -> None:
    entry = {"pid": 4194304, "app": "app", "version": "v1"}
    (tmp_path / "actor-4194304.drain").touch()
    (tmp_path / "actor-4194304.json").write_text(json.dumps(entry))
    JobGauge(tmp_path / "actor-4194304").show(Gauged(3))
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
