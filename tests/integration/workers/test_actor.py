"""An app on a real Ray cluster, reached through the actor's own port."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec, Limits, Resources
from rayline.reports import ActorEndpoint
from rayline.wire import JobStatus, Verdict
from tests.integration.workers.cluster_under_test import ClusterUnderTest
from tests.integration.workers.lane import Answered, open_channel, send, send_into
from workers.channel import FlightChannel
from workers.sessions import session_members, wait_session_end

pytestmark = pytest.mark.integration

WriteApp = Callable[..., AppSpec]

EVERYTHING = """
import asyncio, ctypes, os, signal, time

def feature(payload):
    match payload["do"]:
        case "echo":
            return payload
        case "raise":
            raise ValueError("the payload is " + payload["why"])
        case "sleep":
            time.sleep(payload["seconds"])
            return "slept"
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fork":
            child = os.fork()
            if child == 0:
                time.sleep(120)
                os._exit(0)
            return child
        case "pid":
            return os.getpid()
        case "grow":
            hoard = []
            while True:
                hoard.append(b"x" * 2**23)
                time.sleep(0.01)
        case "hold":
            return sum(range(10**12))
"""


def deploy(cluster: ClusterUnderTest, spec: AppSpec, node: str = "p1") -> ActorEndpoint:
    cluster.deploy(spec)
    return cluster.gateway.wait_for_actor(spec.name, node)


async def test_each_job_is_answered_for_itself(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    channel = open_channel(deploy(cluster, write_app("each", EVERYTHING)))
    answered = await send(channel, [{"do": "echo"}, {"do": "raise", "why": "wrong"}, b"\xc1", {"do": "echo", "n": 2}])
    assert answered.head is not None
    assert answered.head.verdict is Verdict.DONE
    assert answered.values == {0: {"do": "echo"}, 3: {"do": "echo", "n": 2}}
    assert answered.errors[1] == (JobStatus.ERROR, "builtins.ValueError", "the payload is wrong")
    assert answered.errors[2][0] is JobStatus.INVALID
    channel.close()
    cluster.undeploy("each")


async def test_async_jobs_of_one_batch_run_side_by_side(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    source = "import asyncio\nasync def feature(payload):\n    await asyncio.sleep(0.3)\n    return payload\n"
    channel = open_channel(deploy(cluster, write_app("side", source)))
    started = time.monotonic()
    answered = await send(channel, list(range(100)))
    assert time.monotonic() - started < 3
    assert answered.values == {index: index for index in range(100)}
    channel.close()
    cluster.undeploy("side")


async def test_finished_jobs_arrive_while_the_batch_runs(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    channel = open_channel(deploy(cluster, write_app("early", EVERYTHING)))
    answered = Answered()
    sending = asyncio.create_task(send_into(answered, channel, [{"do": "echo"}, {"do": "sleep", "seconds": 1.5}]))
    async with asyncio.timeout(1.2):
        await answered.first.wait()
    assert answered.values == {0: {"do": "echo"}}
    await sending
    assert answered.values[1] == "slept"
    channel.close()
    cluster.undeploy("early")


@pytest.mark.parametrize("hang", [{"do": "sleep", "seconds": 60}, {"do": "hold"}], ids=["sleeps", "holds the lock"])
async def test_a_hanging_call_is_ended_and_its_neighbours_delivered(
    cluster: ClusterUnderTest, write_app: WriteApp, hang: dict[str, object]
) -> None:
    app = f"hang-{hang['do']}"
    spec = write_app(app, EVERYTHING, limits=Limits(execute_seconds=1.0))
    endpoint = deploy(cluster, spec)
    channel = open_channel(endpoint)
    answered = await send(channel, [{"do": "echo"}, hang, {"do": "echo"}])
    assert answered.head is not None
    assert answered.head.verdict in ((Verdict.TIMEOUT,) if hang["do"] == "sleep" else (Verdict.TIMEOUT, Verdict.LOST))
    if hang["do"] == "sleep":
        assert answered.values == {0: {"do": "echo"}}
    channel.close()
    # One that is just ending may be listed for a moment: a lane, too, asks the next then.
    deadline = time.monotonic() + 20
    while True:
        again = open_channel(cluster.gateway.wait_for_actor(app, "p1", instead_of=endpoint.instance))
        answered = await send(again, [{"do": "echo"}])
        again.close()
        assert answered.head is not None
        if answered.head.verdict is not Verdict.UNREACHED or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    assert answered.values == {0: {"do": "echo"}}, answered.head
    cluster.undeploy(app)


@pytest.mark.parametrize("how", ["exit", "segfault", "kill"])
async def test_a_worker_that_dies_is_lost_and_comes_back(cluster: ClusterUnderTest, write_app: WriteApp, how: str) -> None:
    app = f"dies{how}"
    endpoint = deploy(cluster, write_app(app, EVERYTHING))
    channel = open_channel(endpoint)
    started = time.monotonic()
    answered = await send(channel, [{"do": how}])
    assert answered.head is not None
    assert answered.head.verdict is Verdict.LOST
    assert time.monotonic() - started < 2
    channel.close()
    assert cluster.gateway.wait_for_actor(app, "p1", instead_of=endpoint.instance).port > 0
    cluster.undeploy(app)


async def test_what_a_dead_worker_had_forked_ends_with_the_next_beat_and_its_batch_is_lost_then(
    cluster: ClusterUnderTest, write_app: WriteApp
) -> None:
    endpoint = deploy(cluster, write_app("forks", EVERYTHING))
    channel = open_channel(endpoint)
    child = (await send(channel, [{"do": "fork"}])).values[0]
    fd = os.pidfd_open(child)
    started = time.monotonic()
    # Until the child ends, it holds the worker's connections open.
    answered = await send(channel, [{"do": "exit"}])
    assert answered.head is not None
    assert answered.head.verdict is Verdict.LOST
    assert time.monotonic() - started < 4
    assert select.select([fd], [], [], 5)[0], "what it forked goes on"
    os.close(fd)
    channel.close()
    assert cluster.gateway.wait_for_actor("forks", "p1", instead_of=endpoint.instance).port > 0
    cluster.undeploy("forks")


async def test_a_worker_over_its_memory_ends_with_the_reason(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    spec = write_app("grows", EVERYTHING, resources=Resources(memory_bytes=500 * 2**20), limits=Limits(execute_seconds=20))
    endpoint = deploy(cluster, spec)
    channel = open_channel(endpoint)
    answered = await send(channel, [{"do": "grow"}])
    assert answered.head is not None
    assert answered.head.verdict is Verdict.LOST
    assert "resources.memory" in (answered.head.reason or "")
    channel.close()
    assert cluster.gateway.wait_for_actor("grows", "p1", instead_of=endpoint.instance).port > 0
    cluster.undeploy("grows")


async def test_a_frozen_worker_runs_into_the_lanes_own_timer(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    channel = open_channel(deploy(cluster, write_app("frozen", EVERYTHING)))
    pid = (await send(channel, [{"do": "pid"}])).values[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        answered = await send(channel, [{"do": "echo"}], timeout_seconds=0.5)
        assert answered.head is not None
        assert answered.head.verdict is Verdict.TIMEOUT
        assert 0.4 < time.monotonic() - started < 1.0
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (await send(channel, [{"do": "echo"}])).values == {0: {"do": "echo"}}
    channel.close()
    cluster.undeploy("frozen")


async def test_no_port_without_the_token(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    endpoint = deploy(cluster, write_app("locked", EVERYTHING))
    channel = FlightChannel(endpoint, app="locked", version="v1", token="guess")
    answered = await send(channel, [{"do": "echo"}])
    assert answered.head is not None
    assert answered.head.verdict is Verdict.LOST
    assert "token" in (answered.head.reason or "")
    channel.close()
    cluster.undeploy("locked")


async def test_packages_named_as_ours_run_unharmed(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    names = ["workers", "scheduler", "ingest", "deploy", "runtime_env", "bench"]
    source = "\n".join(
        [
            "import sys",
            *(f"from {name}.own import whose as {name}_whose" for name in names),
            "def feature(payload):",
            f"    of_those = [name.split('.') for name in sys.modules if name.split('.')[0] in {names!r}]",
            "    ours = [parts for parts in of_those if parts[1:] not in ([], ['own'])]",
            "    return [" + ", ".join(f"{name}_whose()" for name in names) + ", ours, 'rayline' in sys.modules]",
        ]
    )
    spec = write_app("shadow", source)
    for name in names:
        package = Path(spec.root) / name
        package.mkdir()
        (package / "own.py").write_text(f"def whose():\n    return 'the user\\'s {name}'\n")
    channel = open_channel(deploy(cluster, spec))
    answered = await send(channel, [None])
    assert answered.values[0] == [*(f"the user's {name}" for name in names), [], True]
    channel.close()
    cluster.undeploy("shadow")


async def test_an_app_that_cannot_load_is_reported_and_the_next_version_runs(
    cluster: ClusterUnderTest, write_app: WriteApp
) -> None:
    cluster.deploy(write_app("broken", "import nowhere_to_be_found\n"))
    report = cluster.gateway.wait_for(lambda report: "nowhere_to_be_found" in (report["reason"] or ""))
    assert not [actor for actor in report["actors"] if actor["app"] == "broken"]
    channel = open_channel(deploy(cluster, write_app("broken", EVERYTHING, version="v2")))
    assert (await send(channel, [{"do": "echo"}])).values == {0: {"do": "echo"}}
    channel.close()
    cluster.undeploy("broken")


async def test_a_gateway_finds_its_actors_again(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    endpoint = deploy(cluster, write_app("kept", EVERYTHING))
    channel = open_channel(endpoint)
    cluster.gateway.kill()
    assert (await send(channel, [{"do": "echo"}])).values == {0: {"do": "echo"}}
    gateway = cluster.start_gateway()
    gateway.set_apps(list(cluster.apps.values()))
    again = gateway.wait_for_actor("kept", "p1")
    assert again == endpoint
    channel.close()
    cluster.undeploy("kept")


async def test_a_notice_hands_back_what_did_not_start_and_leaves_nothing(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    spec = write_app("noticed", EVERYTHING)
    pod = cluster.start_pod("p2", grace_seconds=10)
    cluster.deploy(spec)
    channel = open_channel(cluster.gateway.wait_for_actor("noticed", "p2"))
    answered = Answered()
    sending = asyncio.create_task(send_into(answered, channel, [{"do": "echo"}, {"do": "sleep", "seconds": 1.5}, {"do": "echo"}]))
    await answered.first.wait()
    pod.process.send_signal(signal.SIGTERM)
    await sending
    assert answered.head is not None
    assert answered.head.verdict is Verdict.DRAINING
    assert answered.values == {0: {"do": "echo"}, 1: "slept"}
    assert await asyncio.to_thread(pod.process.wait, 15) == 0
    assert [state for state in pod.states() if state != "READY"] == ["STARTING", "DRAINING", "GONE"]
    assert session_members(pod.process.pid) == []
    cluster.gateway.wait_for(lambda report: report["node"] == "p2" and report["state"] == 3)
    channel.close()
    cluster.undeploy("noticed")


async def test_a_killed_pod_takes_everything_along(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    spec = write_app("killed", EVERYTHING)
    pod = cluster.start_pod("p3")
    cluster.deploy(spec)
    channel = open_channel(cluster.gateway.wait_for_actor("killed", "p3"))
    # From here on there is a connection that can break.
    assert (await send(channel, [{"do": "echo"}])).values
    sending = asyncio.create_task(send(channel, [{"do": "sleep", "seconds": 20}]))
    await asyncio.sleep(0)
    started = time.monotonic()
    pod.kill_group()
    answered = await sending
    assert answered.head is not None
    assert answered.head.verdict is Verdict.LOST
    assert time.monotonic() - started < 2
    assert await asyncio.to_thread(wait_session_end, pod.process.pid, timeout_seconds=2)
    channel.close()
    cluster.undeploy("killed")


async def test_an_app_that_kills_its_process_while_it_loads_is_reported_and_not_restarted_in_a_loop(
    cluster: ClusterUnderTest, write_app: WriteApp
) -> None:
    source = """
    import os

    class Feature:
        def __init__(self, marks):
            with open(marks, "a") as file:
                file.write(f"{os.getpid()}\\n")
            os._exit(9)

        def __call__(self, payload):
            return payload
    """
    spec = write_app("dies", source, entrypoint="feature:Feature")
    marks = Path(spec.root) / "marks"
    cluster.deploy(replace(spec, constructor={"marks": str(marks)}))
    cluster.gateway.wait_for(lambda report: "died while it loaded" in (report["reason"] or ""))
    assert len(marks.read_text().splitlines()) <= 2
    cluster.undeploy("dies")


async def test_an_agent_killed_alone_takes_its_pod_along(cluster: ClusterUnderTest, write_app: WriteApp) -> None:
    spec = write_app("orphan", EVERYTHING)
    pod = cluster.start_pod("p4")
    cluster.deploy(spec)
    cluster.gateway.wait_for_actor("orphan", "p4")
    assert len(pod.members()) >= 4
    pod.process.kill()
    pod.process.wait()
    assert await asyncio.to_thread(wait_session_end, pod.process.pid, timeout_seconds=3)
    cluster.undeploy("orphan")
