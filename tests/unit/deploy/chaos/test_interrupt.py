"""Ctrl-C of `rayline chaos`: its platform ends, the faults that struck are told, nothing is judged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.interruption import INTERRUPTED_EXIT_CODE
from tests.support.interrupting import interrupt, lives

# A platform that is a process; it takes a moment to end in order.
_FAKE = """
import asyncio, contextlib, os, pathlib, subprocess, sys, types
import deploy.chaos.command as command
from deploy.chaos.faults import Stroke

folder = pathlib.Path({folder!r})
os.chdir(folder)

class Platform:
    def __init__(self, plan, *, log):
        self.folder = types.SimpleNamespace(read=lambda: None)

    async def __aenter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        (folder / "platform").write_text(str(self.process.pid))
        return self

    async def __aexit__(self, *_):
        await asyncio.sleep({ending_seconds})
        await self.hurry()
        (folder / "stopped").touch()

    async def hurry(self):
        self.process.kill()
        self.process.wait()

@contextlib.asynccontextmanager
async def watched(platform, network):
    yield None

async def open_theatre(*_, **__):
    return None

async def strike_under_load(theatre, *, on_stroke, **_):
    on_stroke(types.SimpleNamespace(kind="kill", target="lane", skipped=None))
    (folder / "ready").touch()
    await asyncio.Event().wait()

command.LocalPlatform, command.watched = Platform, watched
command.open_theatre, command.strike_under_load = open_theatre, strike_under_load
sys.exit(command.run(folder / "outcome.json", ["lane-kill"]))
"""


@pytest.mark.parametrize(("presses", "ending_seconds"), [(1, 0.2), (2, 0.2)])
def test_the_platform_ends_and_what_struck_is_told(tmp_path: Path, presses: int, ending_seconds: float) -> None:
    script = _FAKE.format(folder=str(tmp_path), ending_seconds=ending_seconds)
    ended = interrupt(script, ready=tmp_path / "ready", presses=presses)
    assert ended.exit_code == INTERRUPTED_EXIT_CODE, ended
    assert "interrupted after 1 fault:" in ended.out
    assert "Traceback" not in ended.err
    assert (tmp_path / "stopped").exists()
    assert not lives(tmp_path / "platform")
    assert not (tmp_path / "outcome.json").exists()
    (kept,) = (tmp_path / ".rayline").iterdir()
    assert os.path.relpath(kept / "logs", tmp_path) in ended.out
