"""The supervisor with real processes: what dies comes back, what is stopped stays away, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from deploy.local.child import Child
from deploy.local.state import PlatformState
from deploy.local.supervision import Action, Role, Step
from deploy.local.supervisor import ChildSpec, Supervisor
from deploy.local.teardown import clean_up
from rayline.errors import LaunchError

SLEEPER = "import time, signal; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print('up', flush=True); child.wait()"
)


def wait_for_line(path: Path) -> None:
    """Until a child has written to its log."""
    with subprocess.Popen(["tail", "-n", "+1", "-F", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        assert tail.stdout is not None
        tail.stdout.readline()
        tail.terminate()


class Bench:
    """A supervisor that notes what it was told, and waits for it without polling."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.actions: asyncio.Queue[Action] = asyncio.Queue()
        self.changes: asyncio.Queue[list[int]] = asyncio.Queue()
        self.events: list[str] = []
        self.crashes: list[BaseException] = []
        self.supervisor = Supervisor(
            act=self.actions.put, on_change=self.changed, on_event=self.events.append, on_crash=self.crashes.append
        )

    def changed(self) -> None:
        self.changes.put_nowait([record.pid for record in self.supervisor.records()])

    def spec(self, name: str, code: str, role: Role = Role.LANE, grace_seconds: float = 5.0) -> ChildSpec:
        launch = partial(
            Child.start,
            name=name,
            role=role,
            command=[sys.executable, "-c", code],
            env=dict(os.environ),
            log_path=self.folder / f"{name}.log",
        )
        return ChildSpec(name=name, role=role, launch=launch, cluster="c1", grace_seconds=grace_seconds)

    async def next_pids(self, count: int) -> list[int]:
        while len(pids := await self.changes.get()) != count:
            continue
        return pids


async def test_a_killed_lane_is_back_within_a_second(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = (await bench.supervisor.start(bench.spec("lane", SLEEPER))).record.pid
    await bench.next_pids(1)
    killed = time.monotonic()
    os.kill(first, signal.SIGKILL)
    assert await bench.next_pids(0) == []
    (second,) = await bench.next_pids(1)
    assert second != first
    assert time.monotonic() - killed < 1.0
    await bench.supervisor.close()
    assert not psutil.pid_exists(second)


async def test_what_is_stopped_stays_away(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.supervisor.start(bench.spec("lane", SLEEPER))
    await bench.supervisor.stop("lane")
    assert bench.supervisor.records() == []
    assert bench.events == []
    await bench.supervisor.close()


async def test_a_dead_pod_and_a_dead_head_are_left_to_who_knows_clusters(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for name, role in (("pod", Role.POD), ("head", Role.HEAD)):
        child = await bench.supervisor.start(bench.spec(name, SLEEPER, role))
        child.signal(signal.SIGKILL)
    steps = {(await bench.actions.get()).step for _ in range(2)}
    assert steps == {Step.REPLACE_POD, Step.REBUILD_CLUSTER}
    await bench.supervisor.close()


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    child = await bench.supervisor.start(bench.spec("stubborn", STUBBORN, grace_seconds=0.3))
    await asyncio.to_thread(wait_for_line, tmp_path / "stubborn.log")
    begun = time.monotonic()
    await bench.supervisor.stop("stubborn")
    assert time.monotonic() - begun < 3.0
    assert not psutil.pid_exists(child.record.pid)
    await bench.supervisor.close()


async def test_grandchildren_end_with_a_killed_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    child = await bench.supervisor.start(bench.spec("parent", PARENT))
    await asyncio.to_thread(wait_for_line, tmp_path / "parent.log")
    below = psutil.Process(child.record.pid).children()
    assert below
    bench.supervisor.begin_closing()
    child.signal(signal.SIGKILL)
    await bench.next_pids(0)
    await bench.supervisor.close()
    assert psutil.wait_procs(below, timeout=5)[1] == []


async def test_a_command_that_cannot_run_says_what_it_was(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"/no/such/program"):
        await Child.start(name="x", role="lane", command=["/no/such/program"], env={}, log_path=tmp_path / "x.log")


async def test_what_lost_its_parent_is_found_by_the_session_that_was_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    child = await bench.spec("parent", PARENT).launch()
    await asyncio.to_thread(wait_for_line, tmp_path / "parent.log")
    (orphan,) = psutil.Process(child.record.pid).children()
    os.kill(child.record.pid, signal.SIGKILL)
    await child.wait()
    state = PlatformState("no such run", child.record, "localhost:1", True, {}, (child.record,))
    assert await asyncio.to_thread(clean_up, state) == (f"pid {orphan.pid}",)
    assert psutil.wait_procs([orphan], timeout=5)[1] == []
