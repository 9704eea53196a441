"""Environments beside what runs: told in each phase, retried, leased as long as an app may need them; no end waits for them."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec
from rayline.engines import Chosen
from rayline.errors import DiskFull, HealthCheckFailed
from runtime_env.bundle import Bundle, Host
from runtime_env.node import activation as states
from runtime_env.node.activation import Phase, Wanted
from runtime_env.node.folder import NodeFolder
from runtime_env.node.preparing import OnPhase, OnProgress, Prepared
from workers import activation
from workers.activation import PREFETCHED, Activator
from workers.pod_environments import PodEnvironment, read_environment, write_environment

DIGEST = {name: f"sha256:{ord(name):064x}" for name in "abc"}
BUNDLE = Bundle(app="app", app_version="1", entrypoint="m:f", python="3.12.1", host=Host.here(), layers=())


def spec(name: str, version: str = "1", bundle: str | None = None) -> AppSpec:
    return AppSpec(name, version, "/", "m:f", bundle=DIGEST[bundle or name])


class Steps:
    """Prepares when it is told to; an exception that stands for a digest is raised instead."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.wanted: list[Wanted] = []
        self.wrong: dict[str, Exception] = {}
        self.hold: dict[str, threading.Event] = {}
        self.chosen: Chosen | None = None

    def prepare(self, wanted: Wanted, on_phase: OnPhase, on_progress: OnProgress, /) -> Prepared:
        self.tried.append(wanted.app)
        self.wanted.append(wanted)
        on_progress(50, 100)
        if wanted.digest in self.hold:
            self.hold[wanted.digest].wait(20)
        if wanted.digest in self.wrong:
            raise self.wrong[wanted.digest]
        for phase in (Phase.VERIFYING, Phase.UNPACKING, Phase.CHECKING):
            on_phase(phase)
        return Prepared(Path("/node", wanted.app), BUNDLE, self.chosen)


class Site:
    def __init__(self, path: Path) -> None:
        self.steps = Steps()
        self.folder = NodeFolder(path=path / "node", quota_bytes=0)
        self.pod_dir = path / "pod"
        self.pod_dir.mkdir()
        self.activator = Activator(folder=self.folder, preparer=self.steps, pod_dir=self.pod_dir)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Activator]:
        task = asyncio.create_task(self.activator.run())
        try:
            yield self.activator
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.activator._changed.clear()
                await self.activator._changed.wait()

    def phases(self) -> dict[str, str]:
        return {one.app: one.phase for one in self.activator.told(time.monotonic())}

    def told_actor(self, name: str) -> PodEnvironment | None:
        return read_environment(self.pod_dir, DIGEST[name])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_what_apps_need_is_prepared_and_told_to_their_actors(site: Site) -> None:
    async with site.running() as activator:
        activator.set_apps([spec("a"), AppSpec("plain", "1", "/", "m:f")])
        await activator.settled()
        assert site.phases() == {"a": "ready"}
        told = site.told_actor("a")
        assert told is not None
        assert (told.phase, told.root) == ("ready", "/node/a")
        assert told.lease == str(site.folder.lease_file(DIGEST["a"]))
        assert site.folder.is_leased(DIGEST["a"])
    assert not site.folder.is_leased(DIGEST["a"])


async def test_actors_are_told_what_their_engine_computes_on_here(site: Site) -> None:
    site.steps.chosen = Chosen("onnxruntime", "CUDAExecutionProvider", "NVIDIA A10")
    async with site.running() as activator:
        activator.set_apps([spec("a")])
        await activator.settled()
        told = site.told_actor("a")
        assert told is not None
        assert Chosen(**told.engine) == site.steps.chosen


async def test_nothing_is_settled_before_the_apps_are_known(site: Site) -> None:
    async with site.running() as activator:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await activator.settled()
        activator.set_apps([])
        await activator.settled()


async def test_a_failure_is_told_with_its_remedy_and_other_apps_get_theirs(site: Site) -> None:
    site.steps.wrong[DIGEST["a"]] = DiskFull("no room left at /node")
    async with site.running() as activator:
        activator.set_apps([spec("a"), spec("b")])
        await activator.settled()
        assert site.phases() == {"a": "failed", "b": "ready"}
        (load, _) = activator.told(time.monotonic())
        assert load.reason == "no room left at /node"
        assert load.remedy is not None
        assert "make room" in load.remedy
        assert load.retry_seconds is not None
        told = site.told_actor("a")
        assert told is not None
        assert (told.phase, told.root, told.reason) == ("failed", None, "no room left at /node")


async def test_what_failed_is_tried_again_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "FIRST_RETRY_SECONDS", 0.01)
    site.steps.wrong[DIGEST["a"]] = DiskFull("no room")
    async with site.running() as activator:
        activator.set_apps([spec("a")])
        await site.until(lambda: len(site.steps.tried) >= 3)
        site.steps.wrong.clear()
        await site.until(lambda: site.phases() == {"a": "ready"})
        told = site.told_actor("a")
        assert told is not None
        assert told.reason is None


async def test_an_error_that_nobody_thought_of_is_a_failure_like_any_other(site: Site) -> None:
    site.steps.wrong[DIGEST["a"]] = ZeroDivisionError("division by zero")
    async with site.running() as activator:
        activator.set_apps([spec("a")])
        await activator.settled()
        assert activator.told(time.monotonic())[0].reason == "ZeroDivisionError: division by zero"


async def test_a_disk_that_takes_nothing_more_ends_nothing_and_is_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "FIRST_RETRY_SECONDS", 0.01)
    full = [OSError(errno.ENOSPC, "No space left on device")] * 9

    def write(pod_dir: Path, environment: PodEnvironment) -> None:
        if full:
            raise full.pop()
        write_environment(pod_dir, environment)

    monkeypatch.setattr(activation, "write_environment", write)
    async with site.running() as activator:
        activator.set_apps([spec("a")])
        await site.until(lambda: site.told_actor("a") is not None and site.phases() == {"a": "ready"})
        told = site.told_actor("a")
        assert told is not None
        assert told.root == "/node/a"


async def test_the_old_version_stays_leased_and_told_while_the_new_one_cannot_be_prepared(site: Site) -> None:
    site.steps.wrong[DIGEST["b"]] = HealthCheckFailed("ImportError")
    async with site.running() as activator:
        activator.set_apps([spec("app", "1", "a")])
        await activator.settled()
        activator.set_apps([spec("app", "2", "b")])
        await activator.settled()
        old = site.told_actor("a")
        assert old is not None
        assert old.root == "/node/app"
        assert site.folder.is_leased(DIGEST["a"])
        activator.set_apps([spec("app", "1", "a")])
        assert site.told_actor("b") is None
        assert not site.folder.is_leased(DIGEST["b"])
        assert site.steps.tried == ["app", "app"], "going back prepares nothing anew"


async def test_a_node_that_goes_back_to_the_version_before_needs_nothing_anew_and_one_that_never_had_it_may_have_it(
    site: Site,
) -> None:
    async with site.running() as activator:
        activator.set_apps([spec("app", "1", "a")])
        await activator.settled()
        activator.set_apps([spec("app", "2", "b")])
        await activator.settled()
        activator.set_apps([spec("app", "1", "a")], kept_back={"app"})
        await activator.settled()
        assert [one.digest for one in site.steps.wanted] == [DIGEST["a"], DIGEST["b"]]
        assert site.folder.is_leased(DIGEST["a"])
        assert site.folder.is_leased(DIGEST["b"]), "the share may be raised again"
        activator.set_apps([spec("app", "0", "c")], kept_back={"app"})
        await activator.settled()
        assert [one.back for one in site.steps.wanted] == [False, False, True]


async def test_what_is_prefetched_is_put_in_place_beside_what_runs(site: Site) -> None:
    async with site.running() as activator:
        activator.set_apps([replace(spec("app", "1", "a"), prefetch=DIGEST["b"])])
        await site.until(lambda: all(one.phase == "ready" for one in activator.told(time.monotonic())))
        assert [one.version for one in activator.told(time.monotonic())] == [PREFETCHED, "1"]
        activator.set_apps([spec("app", "2", "b")])
        await activator.settled()
        assert {one.version: one.phase for one in activator.told(time.monotonic())} == {"1": "ready", "2": "ready"}
        assert [one.ahead for one in site.steps.wanted] == [False, True, False]


async def test_progress_is_told_and_an_end_in_the_middle_waits_for_nobody(site: Site) -> None:
    site.steps.hold[DIGEST["a"]] = threading.Event()
    async with site.running() as activator:
        activator.set_apps([spec("a")])
        await site.until(lambda: activator.told(time.monotonic())[0].share == 0.5)
    site.steps.hold[DIGEST["a"]].set()


async def test_an_app_that_goes_while_it_is_prepared_leaves_nothing(site: Site) -> None:
    site.steps.hold[DIGEST["a"]] = threading.Event()
    async with site.running() as activator:
        activator.set_apps([spec("a"), spec("b")])
        await site.until(lambda: "fetching" in site.phases().values())
        activator.set_apps([spec("b")])
        site.steps.hold[DIGEST["a"]].set()
        await activator.settled()
        assert site.phases() == {"b": "ready"}
        assert site.told_actor("a") is None
        assert not site.folder.is_leased(DIGEST["a"])
