"""The demo as users start it: a small one reaches every bar, an interrupted one leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.chaos.leftovers import family, left_over
from deploy.local.state import StateFolder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COMMAND = (sys.executable, "-P", "-m", "deploy.cli", "demo")


def test_a_small_demo_reaches_every_bar(tmp_path: Path) -> None:
    arguments = ("--jobs", "24", "--json", str(tmp_path / "demo.json"), "--picture", str(tmp_path / "demo.png"))
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "demo.json").read_text())
    assert (found["jobs"], found["outcomes"], found["lost"], found["duplicated"]) == (24, {"ok": 24}, 0, 0)
    assert found["accuracy"] >= 0.95
    assert found["latency_ms"]["max"] <= 10_000
    assert found["evictions"] == 1
    assert "eviction notice to" in done.stdout
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / ".rayline").glob("demo-*")) == []


def test_ctrl_c_while_clusters_start_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if "Ray cluster(s)" in line:
                break
        folder = next((tmp_path / ".rayline").glob("demo-*"))
        state = StateFolder(folder).read()
        assert state is not None
        processes = family(demo.pid)
        assert processes
        os.kill(demo.pid, signal.SIGINT)
        demo.stderr.read()
        assert demo.wait() == 130
    assert left_over(processes, state.run_id) == 0
