"""Ctrl-C of `rayline bench`: nothing that it started is left, the rounds that are done are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.interruption import INTERRUPTED_EXIT_CODE
from tests.support.interrupting import interrupt, lives

# A broker that is a process; a contestant that is done at once, one that starts a process and does not end. `rayline` is a
# program that notes how it was called, and starts a platform that is a process.
_FAKE = """
import pathlib, subprocess, sys
import bench.contestants, bench.run
from bench.run import Bench, Round

folder = pathlib.Path({folder!r})
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

class Broker:
    def __init__(self, data_dir):
        pass

    async def start(self):
        self.process = subprocess.Popen(SLEEP, start_new_session=True)
        self.pid = self.process.pid
        (folder / "broker").write_text(str(self.pid))
        return "127.0.0.1:1"

    async def stop(self):
        self.process.terminate()
        self.process.wait()

class Done:
    name = "echo_ray_micro_batches"
    correlation = None

    def work_off(self, heap):
        return {{}}

class Endless(Done):
    def work_off(self, heap):
        return bench.contestants._run([sys.executable, "-c", {endless!r}], seconds=60)

first = Bench._round
def one_round(self, contestant, workload):
    if type(contestant) is Done:
        return Round(jobs_per_s=1234.0, lost=0, duplicated=0, wrong=0, cpu_s_per_1000={{}})
    return contestant.work_off(self._heap(workload, jobs=1))

bench.run.LocalKafka, bench.run.calibrate_loops, Bench._round = Broker, lambda: 1, one_round
bench.run.references = lambda workload: (Done(),)
bench.run.Rayline = {ours}
sys.exit(bench.run.main(arguments=["--workloads", "echo", *{arguments!r}], json_path=folder / "outcome.json"))
"""

_ENDLESS = """
import pathlib, os, signal, sys, time
folder = pathlib.Path({folder!r})
(folder / "endless").write_text(str(os.getpid()))
(folder / "ready").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    (folder / "ended in order").touch()
"""

_RAYLINE = """#!{python}
import os, pathlib, subprocess, sys, time
folder, word = pathlib.Path({folder!r}), sys.argv[1]
with (folder / "called").open("a") as called:
    called.write(word + "\\n")
if word == "up":
    command, nowhere = [sys.executable, "-c", "import time; time.sleep(600)"], subprocess.DEVNULL
    platform = subprocess.Popen(command, stdout=nowhere, stderr=nowhere, start_new_session=True)
    (folder / "platform").write_text(str(platform.pid))
elif word == "deploy":
    (folder / "ready").touch()
    time.sleep(600)
else:
    time.sleep(0.5)
    os.kill(int((folder / "platform").read_text()), 9)
"""


@pytest.mark.parametrize("presses", [1, 3])
def test_what_a_round_started_ends_and_the_rounds_before_are_told(tmp_path: Path, presses: int) -> None:
    endless = _ENDLESS.format(folder=str(tmp_path))
    script = _FAKE.format(folder=str(tmp_path), endless=endless, ours="Done", arguments=["--repeat", "2"])
    script = script.replace("(Done(),)", "(Done(), Endless())")
    ended = interrupt(script, ready=tmp_path / "ready", presses=presses)
    assert ended.exit_code == INTERRUPTED_EXIT_CODE, ended
    assert "interrupted after 2 of 6 rounds" in ended.err
    assert "1,234" in ended.out
    assert "Bars" not in ended.out
    assert "Traceback" not in ended.err
    assert (tmp_path / "ended in order").exists()
    assert not lives(tmp_path / "endless")
    assert not lives(tmp_path / "broker")
    assert not (tmp_path / "outcome.json").exists()


def test_a_platform_of_rayline_is_taken_down(tmp_path: Path) -> None:
    command = tmp_path / "rayline"
    command.write_text(_RAYLINE.format(python=sys.executable, folder=str(tmp_path)))
    command.chmod(0o755)
    ours = f"lambda: bench.contestants.Rayline(command=[{str(command)!r}])"
    script = _FAKE.format(folder=str(tmp_path), endless="", ours=ours, arguments=[])
    ended = interrupt(script, ready=tmp_path / "ready", presses=2)
    assert ended.exit_code == INTERRUPTED_EXIT_CODE, ended
    assert "interrupted after 0 of 6 rounds" in ended.err
    assert (tmp_path / "called").read_text().split() == ["up", "deploy", "down"]
    assert not lives(tmp_path / "platform")
    assert not lives(tmp_path / "broker")
