"""One cluster by its orders, with processes that only sleep: what is ordered runs, what is not does not, nothing runs twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.local.child import Child
from deploy.local.cluster import ClusterTools, LocalCluster
from deploy.local.state import StateFolder
from deploy.local.supervision import Role
from deploy.local.supervisor import Supervisor
from rayline.clusters import ActualCluster, ClusterOrder, Phase, Slot
from rayline.errors import ClusterError

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


class SleepingHead:
    """Stands in for `LocalHead`: a process of its own session; `broken` heads end before they answer."""

    broken = False

    def __init__(self, *, cluster: str, token_path: Path, log_path: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        token_path.write_text("token")

    @property
    def address(self) -> str:
        if self._process is None:
            raise ClusterError("the head of c1 was not started")
        return "127.0.0.1:1"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._process = subprocess.Popen(SLEEPER, start_new_session=True)

    def wait_ready(self) -> None:
        if self.broken:
            raise ClusterError("the head of c1 ended")

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None


class SleepingLauncher:
    """Stands in for `ProcessLauncher`, and counts the starts of each name."""

    def __init__(self, folder: StateFolder) -> None:
        self.folder = folder
        self.commands: list[tuple[str, ...]] = []

    async def start(self, name: str, role: Role, *arguments: str, cluster: str, env: Mapping[str, str]) -> Child:
        self.commands.append((name, *arguments))
        log_path = self.folder.logs / f"{name}.log"
        return await Child.start(name=name, role=role, command=SLEEPER, env=dict(os.environ), log_path=log_path, cluster=cluster)

    def started(self, role: str) -> list[str]:
        return sorted(name for name, *_ in self.commands if role in name)


class Site:
    """A cluster, and a way to wait for what becomes of it."""

    def __init__(self, folder: Path, *, broken: bool = False) -> None:
        self.losses: list[str] = []
        self.addresses: list[str] = []
        self.crashes: list[BaseException] = []
        self._changed = asyncio.Event()
        self.launcher = SleepingLauncher(StateFolder(folder))
        self.supervisor = Supervisor(on_change=self.changed, on_event=lambda _: None, on_crash=self.crashes.append)
        tools = ClusterTools(
            supervisor=self.supervisor,
            launcher=self.launcher,  # type: ignore[arg-type]
            on_change=self.changed,
            on_loss=self.losses.append,
            on_event=lambda _: None,
            on_crash=self.crashes.append,
            new_head=type("Head", (SleepingHead,), {"broken": broken}),
        )
        self.cluster = LocalCluster(name="c1", executor="life", tools=tools)

    def changed(self) -> None:
        self.addresses.append(self.cluster.address)
        self._changed.set()

    def actual(self) -> ActualCluster:
        actual = self.cluster.actual()
        assert actual is not None
        return actual

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await self._changed.wait()
                self._changed.clear()

    async def running(self, *names: str) -> None:
        """Until exactly these processes run."""
        await self.until(lambda: sorted(record.name for record in self.supervisor.records()) == sorted(names))


@asynccontextmanager
async def site(folder: Path, *, broken: bool = False) -> AsyncIterator[Site]:
    made = Site(folder, broken=broken)
    yield made
    made.cluster.begin_closing()
    await made.supervisor.close()
    await made.cluster.close()
    await made.supervisor.close()
    assert made.supervisor.records() == []
    assert made.crashes == []


def order(*pods: str, revision: int = 1, generation: int = 1, wanted: bool = True, leaving: tuple[str, ...] = ()) -> ClusterOrder:
    slots = tuple(Slot(number, pod) for number, pod in enumerate(pods))
    return ClusterOrder("c1", 1, revision, "life", generation, wanted, slots=slots, leaving=leaving)


async def test_an_order_is_carried_out_and_said_again_changes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        made.cluster.apply(order("a", "b"))
        made.cluster.apply(order("a", "b"))
        await made.running("c1-head-1", "c1-gateway-1", "a", "b")
        made.cluster.apply(order("a", "b", revision=2))
        assert made.launcher.started("") == ["a", "b", "c1-gateway-1"]
        assert {fact.phase for fact in made.actual().pods.values()} == {Phase.RUNNING}
        assert made.actual().revision == 2


async def test_a_pod_that_ended_is_told_and_waits_for_its_order(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        made.cluster.apply(order("a", "b"))
        await made.running("c1-head-1", "c1-gateway-1", "a", "b")
        made.supervisor.child("a").signal(signal.SIGKILL)
        await made.until(lambda: made.actual().pods["a"].phase is Phase.ENDED)
        assert made.losses == ["a"]
        assert "SIGKILL" in (made.actual().pods["a"].reason or "")
        made.cluster.apply(order("a", "b", revision=2))
        made.cluster.apply(order("c", "b", revision=3))
        await made.running("c1-head-1", "c1-gateway-1", "b", "c")
        assert made.launcher.started("a").count("a") == 1
        assert sorted(made.actual().pods) == ["b", "c"]


async def test_a_leaving_pod_may_end_by_itself_and_one_that_is_not_named_is_stopped(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        made.cluster.apply(order("a", "b"))
        await made.running("c1-head-1", "c1-gateway-1", "a", "b")
        made.cluster.apply(order("c", revision=2, leaving=("a",)))
        await made.running("c1-head-1", "c1-gateway-1", "a", "c")
        made.supervisor.child("a").signal(signal.SIGTERM)
        await made.until(lambda: made.actual().pods["a"].phase is Phase.ENDED)
        assert made.actual().pods["a"].noticed
        assert made.losses == ["b", "a"]


async def test_another_generation_is_another_head_and_nothing_of_the_old_one_stays(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        made.cluster.apply(order("a"))
        await made.running("c1-head-1", "c1-gateway-1", "a")
        made.supervisor.child("c1-head-1").signal(signal.SIGKILL)
        await made.until(lambda: made.losses == ["c1"])
        head = made.actual().head
        assert head is not None
        assert head.phase is Phase.ENDED
        made.cluster.apply(order("b", revision=2, generation=2))
        await made.running("c1-head-2", "c1-gateway-2", "b")
        assert made.actual().generation == 2
        tokens = {path.name for path in made.launcher.folder.ray.iterdir()}
        assert tokens == {"c1-head-1.token", "c1-head-2.token"}, "what is left of the old one cannot join the new one"


async def test_a_cluster_that_is_not_wanted_leaves_nothing_and_can_come_back(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        made.cluster.apply(order("a"))
        await made.running("c1-head-1", "c1-gateway-1", "a")
        made.cluster.apply(order(revision=2, wanted=False))
        await made.running()
        made.cluster.apply(order("b", revision=3, generation=2))
        await made.running("c1-head-2", "c1-gateway-2", "b")


async def test_a_head_that_was_prepared_is_the_first_orders(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        made.cluster.prepare()
        await made.running("c1-head-1")
        assert made.cluster.actual() is None
        made.cluster.apply(order("a"))
        await made.running("c1-head-1", "c1-gateway-1", "a")


async def test_a_head_that_does_not_come_up_is_told_with_its_reason_and_takes_its_pods_along(tmp_path: Path) -> None:
    async with site(tmp_path, broken=True) as made:
        made.cluster.apply(order("a"))
        await made.until(lambda: (made.actual().head or made.actual().pods["a"]).phase is Phase.ENDED)
        head = made.actual().head
        assert head is not None
        assert head.reason == "the head of c1 ended"
        made.cluster.apply(order(revision=2, wanted=False))
        await made.running()


@pytest.mark.parametrize("moment", ["at once", "while it starts", "when it runs"])
async def test_the_end_of_everything_in_the_middle_of_an_order_leaves_no_process(tmp_path: Path, moment: str) -> None:
    before = set(psutil.Process().children(recursive=True))
    async with site(tmp_path) as made:
        made.cluster.apply(order("a", "b"))
        if moment == "while it starts":
            await made.until(lambda: bool(made.supervisor.records()))
        elif moment == "when it runs":
            await made.running("c1-head-1", "c1-gateway-1", "a", "b")
            made.cluster.apply(replace(order("c", "b"), revision=2))
    assert set(psutil.Process().children(recursive=True)) <= before
