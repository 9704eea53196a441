"""`rayline up`: whatever interrupts it, what it started is stopped, and its end says whether it ever was up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.local import launcher
from deploy.local.launcher import PlatformPlan, run_detached, run_in_foreground
from rayline.errors import LaunchError


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


async def interrupted(monkeypatch: pytest.MonkeyPatch, platform: FakePlatform, folder: Path) -> bool:
    monkeypatch.setattr(launcher, "LocalPlatform", lambda *_, **__: platform)
    return await run_in_foreground(PlatformPlan(state_dir=folder))


@pytest.mark.parametrize("comes_up", [False, True])
async def test_an_interrupt_stops_what_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_up: bool) -> None:
    platform = FakePlatform(comes_up=comes_up, interrupted_in=("start",))
    assert await interrupted(monkeypatch, platform, tmp_path) is comes_up
    assert platform.calls == ["start", "stop"]


async def test_a_second_interrupt_kills_what_is_still_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = FakePlatform(comes_up=False, interrupted_in=("start", "stop"))
    assert not await interrupted(monkeypatch, platform, tmp_path)
    assert platform.calls == ["start", "stop", "hurry"]


async def test_a_platform_that_cannot_go_on_is_stopped_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = FakePlatform(comes_up=True)
    platform.failure.set_exception(LaunchError("a part keeps ending"))
    with pytest.raises(LaunchError, match="keeps ending"):
        await interrupted(monkeypatch, platform, tmp_path)
    assert platform.calls == ["start", "stop"]


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
