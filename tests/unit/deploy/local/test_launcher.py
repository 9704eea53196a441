"""`rayline up`: whatever interrupts it, what it started is stopped, and its end says whether it ever was up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import launcher
from deploy.local.child import ProcessRecord
from deploy.local.launcher import PlatformPlan, run_detached, run_in_foreground
from rayline.config import ProcessIdentity
from rayline.errors import LaunchError

CHILDREN = "rayline_launcher_children"


class FakePlatform:
    """Stands for LocalPlatform: `comes_up` False never becomes ready; `interrupt` is sent to this process by each part named."""

    def __init__(self, *, comes_up: bool, interrupted_in: tuple[str, ...] = ()) -> None:
        self._comes_up = comes_up
        self._interrupted_in = interrupted_in
        self.calls: list[str] = []
        self.started = False
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hurried = asyncio.Event()
        self.settings = SimpleNamespace(bootstrap_servers="here:1")
        self.folder = SimpleNamespace(logs="logs")

    def processes(self) -> list[ProcessRecord]:
        return [ProcessRecord(name=name, role=name.split("-")[0], pid=1, started=0.0) for name in ("kafka", "lane-1", "lane-2")]

    async def start(self) -> None:
        self.started = True
        self._reached("start")
        if not self._comes_up:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        self._reached("stop")
        if "stop" in self._interrupted_in:
            await self.hurried.wait()

    async def hurry(self) -> None:
        self._reached("hurry")
        self.hurried.set()

    def _reached(self, part: str) -> None:
        self.calls.append(part)
        if part in self._interrupted_in:
            os.kill(os.getpid(), signal.SIGINT)


class FakeWatch:
    """Stands for ConfigWatch: writes down whose it was, and that it ended, among the platform's calls; goes on as it is told."""

    def __init__(self, platform: FakePlatform, identity: ProcessIdentity, then: Callable[[FakeWatch], None]) -> None:
        self._calls = platform.calls
        self._then = then
        self.identity = identity
        self.metrics: str | None = None
        self.status = SimpleNamespace(problem=None)

    def announce(self, *, metrics: str | None) -> None:
        self.metrics = metrics
        self._then(self)

    async def __aenter__(self) -> FakeWatch:
        self._calls.append("watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._calls.append("good-bye")


async def interrupted(
    monkeypatch: pytest.MonkeyPatch,
    platform: FakePlatform,
    folder: Path,
    announced: Callable[[FakeWatch], None] = lambda _: None,
) -> bool:
    monkeypatch.setattr(launcher, "LocalPlatform", lambda *_, **__: platform)
    monkeypatch.setattr(launcher, "ConfigWatch", lambda *, identity, **_: FakeWatch(platform, identity, announced))
    return await run_in_foreground(PlatformPlan(state_dir=folder))


@pytest.mark.parametrize("comes_up", [False, True])
async def test_an_interrupt_stops_what_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_up: bool) -> None:
    platform = FakePlatform(comes_up=comes_up, interrupted_in=("start",))
    assert await interrupted(monkeypatch, platform, tmp_path) is comes_up
    assert [call for call in platform.calls if call not in ("watch", "good-bye")] == ["start", "stop"]


async def test_the_launcher_shows_its_metrics_and_says_good_bye_before_its_broker_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, told = FakePlatform(comes_up=True), list[tuple[str, str]]()

    def look(watch: FakeWatch) -> None:
        async def ask() -> None:
            try:
                page = await asyncio.to_thread(read, f"http://{watch.metrics}/metrics")
                while CHILDREN not in page:
                    page = await asyncio.to_thread(read, f"http://{watch.metrics}/metrics")
                told.append((watch.identity.process, page))
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        asking.append(asyncio.ensure_future(ask()))

    asking: list[asyncio.Future[None]] = []
    assert await interrupted(monkeypatch, platform, tmp_path, look)
    await asking[0]
    assert platform.calls == ["start", "watch", "good-bye", "stop"]
    ((process, page),) = told
    assert process == f"launcher/{socket.gethostname()}"
    counted = {
        sample.labels["rayline_child"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == CHILDREN
    }
    assert counted == {"kafka": 1, "lane": 2}


def read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as response:
        return str(response.read().decode())


async def test_a_second_interrupt_kills_what_is_still_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = FakePlatform(comes_up=False, interrupted_in=("start", "stop"))
    assert not await interrupted(monkeypatch, platform, tmp_path)
    assert platform.calls == ["start", "stop", "hurry"]


async def test_a_platform_that_cannot_go_on_is_stopped_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = FakePlatform(comes_up=True)
    platform.failure.set_exception(LaunchError("a part keeps ending"))
    with pytest.raises(LaunchError, match="keeps ending"):
        await interrupted(monkeypatch, platform, tmp_path)
    assert platform.calls == ["start", "watch", "good-bye", "stop"]


def test_ctrl_c_while_a_detached_platform_starts_takes_its_launcher_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted_follow(process: subprocess.Popen[bytes], *_: object) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "rayline_command", lambda *_: [sys.executable, "-c", "import signal; signal.pause()"])
    monkeypatch.setattr(launcher, "_follow_until_ready", interrupted_follow)
    with pytest.raises(KeyboardInterrupt):
        run_detached(PlatformPlan(state_dir=tmp_path))
    assert started[0].poll() == -signal.SIGTERM


def test_a_detached_launcher_that_ends_before_it_is_ready_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "rayline_command", lambda *_: [sys.executable, "-c", "import sys; sys.exit('no broker')"])
    with pytest.raises(LaunchError, match="status 1"):
        run_detached(PlatformPlan(state_dir=tmp_path))
    assert "no broker" in capfd.readouterr().err
