"""The state folder: one launcher, no foreign process taken for ours, secrets that only we read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil
import pytest

from deploy.local.child import ProcessRecord
from deploy.local.state import PlatformState, StateFolder
from deploy.local.teardown import take_down
from rayline.errors import LaunchError


def record_of_myself() -> ProcessRecord:
    me = psutil.Process()
    return ProcessRecord(name="me", role="pod", pid=me.pid, started=me.create_time(), cluster="c1")


def test_a_second_launcher_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    first = StateFolder(tmp_path / "state")
    first.lock()
    with pytest.raises(LaunchError, match=rf"pid {os.getpid()}.*rayline down"):
        StateFolder(tmp_path / "state").lock()
    assert StateFolder(tmp_path / "state").locked()
    first.unlock()
    assert not StateFolder(tmp_path / "state").locked()


def test_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    state = PlatformState("run", record_of_myself(), "localhost:1", True, {"c1": "a:1"}, (record_of_myself(),))
    folder.write(state)
    assert folder.read() == state
    folder.clear()
    assert folder.read() is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"v": 1}', '{"v": 9}'])
def test_a_state_file_that_is_not_ours_is_an_error_with_a_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(LaunchError, match=r"state\.json"):
        StateFolder(tmp_path).read()


def test_secrets_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.write_secrets(channel_token="t", kafka={"A": "b"})
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert folder.read_kafka() == {"A": "b"}
    assert folder.read_channel_token() == "t"


def test_a_reused_pid_is_not_taken_for_the_recorded_process() -> None:
    mine = record_of_myself()
    assert mine.process() is not None
    assert ProcessRecord(name="me", role="pod", pid=mine.pid, started=mine.started - 1).process() is None


def test_down_ends_no_process_whose_start_time_is_another(tmp_path: Path) -> None:
    other = ProcessRecord(name="me", role="pod", pid=os.getpid(), started=1.0)
    StateFolder(tmp_path).write(PlatformState("no such run", other, "localhost:1", True, {}, (other,)))
    outcome = take_down(tmp_path, timeout_seconds=1)
    assert (outcome.was_running, outcome.killed) == (False, ())
    assert StateFolder(tmp_path).read() is None
