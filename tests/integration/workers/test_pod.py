"""A pod of a real Ray cluster: what its agent tells, and how it ends, freezes and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayline.app_spec import AppSpec
from rayline.wire import Verdict
from tests.integration.workers.cluster_under_test import ClusterUnderTest, Pod
from tests.integration.workers.lane import Answered, open_channel, send, send_into
from workers.cluster import ray_folder
from workers.notices.prestop import PORT_FILE
from workers.sessions import session_members, signal_session

pytestmark = pytest.mark.integration

WriteApp = Callable[..., AppSpec]

SLEEPER = """
import time

def feature(seconds):
    time.sleep(seconds)
    return seconds
"""
FREEZE_SECONDS = 5.0


async def beat_with(pod: Pod, condition: Callable[[dict[str, Any]], bool], *, seconds: float = 20) -> dict[str, Any]:
    """The first beat of a pod, from now on, that meets the condition."""
    seen = len(pod.reports(changes=False))
    async with asyncio.timeout(seconds):
        while True:
            for report in pod.reports(changes=False)[seen:]:
                if condition(report):
                    return report
            await asyncio.sleep(0.05)


def process_named(pod: Pod, name: str) -> int:
    (found,) = [pid for pid in pod.members() if Path(f"/proc/{pid}/comm").read_text().strip() == name]
    return found


async def test_a_prestop_call_hands_back_the_call_that_outlasts_the_grace_period_and_waits_for_it(
    cluster: ClusterUnderTest, write_app: WriteApp
) -> None:
    pod = cluster.start_pod("p5", grace_seconds=3)
    cluster.deploy(write_app("outlasts", SLEEPER))
    channel = open_channel(cluster.gateway.wait_for_actor("outlasts", "p5"))
    answered = Answered()
    sending = asyncio.create_task(send_into(answered, channel, [0.0, 60.0, 0.0]))
    await answered.first.wait()

    busy = await beat_with(pod, lambda report: bool(report["load"] and report["load"]["jobs_in_flight"] == 2))
    assert busy["beat"]
    assert busy["actors"] is None
    assert busy["load"]["cores"] > 0
    assert busy["load"]["own_memory_bytes"] > 10_000_000
    assert abs(busy["load"]["clock_skew_ms"]) < 5_000

    port = (ray_folder(f"{cluster.token_path.resolve()}/c1/p5") / PORT_FILE).read_text().strip()
    noticed = time.monotonic()
    url = f"http://127.0.0.1:{port}/prestop"
    status = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=20).status)
    assert status == 200
    assert time.monotonic() - noticed < 3
    await sending
    assert answered.head is not None
    assert answered.head.verdict is Verdict.DRAINING
    assert answered.values == {0: 0.0}
    assert await asyncio.to_thread(pod.process.wait, 15) == 0
    assert [state for state in pod.states() if state != "READY"] == ["STARTING", "DRAINING", "GONE"]
    assert pod.reports(changes=True)[-1]["reason"] == "evicted: prestop"
    assert session_members(pod.process.pid) == []
    channel.close()
    cluster.undeploy("outlasts")


async def test_a_pod_that_was_frozen_goes_on_as_the_same_and_tells_at_once_when_its_ray_node_dies(
    cluster: ClusterUnderTest, write_app: WriteApp
) -> None:
    pod = cluster.start_pod("p6")
    cluster.deploy(write_app("frozen-pod", SLEEPER))
    endpoint = cluster.gateway.wait_for_actor("frozen-pod", "p6")
    before = await beat_with(pod, lambda _: True)
    signal_session(pod.process.pid, signal.SIGSTOP)
    beats = len(pod.reports(changes=False))
    try:
        await asyncio.sleep(FREEZE_SECONDS)
        assert len(pod.reports(changes=False)) - beats <= 1
    finally:
        signal_session(pod.process.pid, signal.SIGCONT)
    after = await beat_with(pod, lambda _: True)
    assert after["incarnation"] == before["incarnation"]
    assert after["seq"] > before["seq"]
    channel = open_channel(endpoint)
    assert (await send(channel, [0.0])).values == {0: 0.0}
    channel.close()

    raylet = process_named(pod, "raylet")
    ended = time.monotonic()
    os.kill(raylet, signal.SIGKILL)
    assert await asyncio.to_thread(pod.process.wait, 15) == 1
    last = pod.reports(changes=True)[-1]
    assert last["state"] == 3
    assert last["reason"] == f"its raylet (process {raylet}) ended"
    assert time.monotonic() - ended < 10
    assert session_members(pod.process.pid) == []
    cluster.undeploy("frozen-pod")


async def test_a_pod_that_ray_gave_up_while_it_was_frozen_ends_when_it_thaws_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("initial_delay_ms", 500), ("period_ms", 500), ("timeout_ms", 1000), ("failure_threshold", 3)):
        monkeypatch.setenv(f"RAY_health_check_{name}", str(value))
    hasty = ClusterUnderTest(tmp_path)
    try:
        pod = hasty.start_pod("p1")
        signal_session(pod.process.pid, signal.SIGSTOP)
        try:
            hasty.gateway.wait_for(lambda report: report["node"] == "p1" and report["state"] == 3, 60)
        finally:
            signal_session(pod.process.pid, signal.SIGCONT)
        assert await asyncio.to_thread(pod.process.wait, 20) == 1
        last = pod.reports(changes=True)[-1]
        assert last["state"] == 3
        assert "raylet" in last["reason"]
        assert session_members(pod.process.pid) == []
    finally:
        hasty.close()
