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
from deploy.local.supervision import Role
from deploy.local.supervisor import ChildSpec, Ending, Supervisor
from deploy.local.teardown import clean_up
from rayline.errors import LaunchError

SLEEPER = "import time, signal; time.sleep(600)"
NAP = "import time; time.sleep(0.5)"
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
        self.endings: asyncio.Queue[Ending] = asyncio.Queue()
        self.changes: asyncio.Queue[list[int]] = asyncio.Queue()
        self.events: list[str] = []
        self.crashes: list[BaseException] = []
        self.supervisor = Supervisor(on_change=self.changed, on_event=self.events.append, on_crash=self.crashes.append)

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
        on_end = self.endings.put_nowait if role in (Role.POD, Role.HEAD) else None
        return ChildSpec(name=name, role=role, launch=launch, cluster="c1", grace_seconds=grace_seconds, on_end=on_end)

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


@pytest.mark.parametrize(
    ("code", "strike", "noticed", "failed"),
    [
        (SLEEPER, signal.SIGKILL, False, False),
        (SLEEPER, signal.SIGTERM, True, False),
        (f"{NAP}; raise SystemExit(3)", None, False, True),
        (NAP, None, True, False),
    ],
    ids=["killed", "terminated", "failed", "left"],
)
async def test_a_pods_end_is_told_once_with_how_it_came_and_nothing_is_started_again(
    tmp_path: Path, code: str, strike: signal.Signals | None, noticed: bool, failed: bool
) -> None:
    bench = Bench(tmp_path)
    child = await bench.supervisor.start(bench.spec("pod", code, Role.POD))
    if strike is not None:
        child.signal(strike)
    ending = await bench.endings.get()
    assert (ending.name, ending.noticed, ending.failed, ending.asked_for) == ("pod", noticed, failed, False)
    assert bench.supervisor.records() == []
    await bench.supervisor.close()
    assert bench.endings.empty()


async def test_an_evicted_pod_that_had_to_be_killed_left_in_order_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.supervisor.start(bench.spec("pod", STUBBORN, Role.POD))
    await asyncio.to_thread(wait_for_line, tmp_path / "pod.log")
    await bench.supervisor.evict("pod", grace_seconds=0.2)
    assert (await bench.endings.get()).noticed
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
