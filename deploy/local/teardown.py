"""`down`: end a platform from another shell, orderly where its launcher lives, by its records where it was killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from deploy.local.child import RUN_ID_VARIABLE, ProcessRecord, descendants, kill_all
from deploy.local.state import PlatformState, StateFolder
from rayline.errors import LaunchError
from workers.cluster import sweep_ray_folders
from workers.sessions import session_members

_ORPHAN_GRACE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Teardown:
    """What `down` found and did. `killed`: processes that had to be ended by their records."""

    was_running: bool
    launcher_pid: int | None
    killed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"was_running": self.was_running, "launcher_pid": self.launcher_pid, "killed": list(self.killed)}

    def text(self) -> str:
        if self.was_running:
            return f"stopped (launcher {self.launcher_pid})" + (f"; killed: {', '.join(self.killed)}" if self.killed else "")
        if self.killed:
            return f"its launcher was gone already; ended what it left: {', '.join(self.killed)}"
        return "nothing was running"


def take_down(path: Path, *, timeout_seconds: float) -> Teardown:
    """Stop the platform of a state folder; raises LaunchError when the launcher does not end in time."""
    folder = StateFolder(path)
    state = folder.read()
    launcher = state.launcher.process() if state is not None else None
    if launcher is not None:
        launcher.send_signal(signal.SIGTERM)
        if not folder.wait_unlocked(timeout_seconds):
            raise LaunchError(
                f"the launcher (pid {launcher.pid}) did not end within {timeout_seconds:g} s; its log is in {folder.logs}; "
                f"`kill -9 {launcher.pid}` and another `rayline down` end it for certain"
            )
    if folder.locked():
        raise LaunchError(f"{folder.path} is locked by a launcher that is just starting: try again, or wait until it is up")
    left = folder.read()
    killed = clean_up(left) if left is not None else ()
    folder.clear()
    return Teardown(was_running=launcher is not None, launcher_pid=launcher.pid if launcher else None, killed=killed)


def clean_up(state: PlatformState) -> tuple[str, ...]:
    """End what a launcher that is gone left behind: recorded processes, what is below them, what else carries its run's id."""
    names = _left_of(state)
    _terminate(list(names))
    _, alive = psutil.wait_procs(list(names), timeout=_ORPHAN_GRACE_SECONDS)
    kill_all(alive)
    # What was forked meanwhile, or lost its parent before it could be found below it.
    late = _left_of(state)
    kill_all(list(late))
    sweep_ray_folders()
    return tuple((names | late).values())


def _left_of(state: PlatformState) -> dict[psutil.Process, str]:
    """Every living process of a run, with a name for people."""
    names: dict[psutil.Process, str] = {}
    for record in reversed(state.processes):
        process = record.process()
        if process is not None:
            names[process] = record.name
    found = [below for process in names for below in descendants(process.pid)]
    found += [member for record in state.processes for member in _of_session(record)]
    found += _of_run(state.run_id)
    return {process: f"pid {process.pid}" for process in found} | names


def _of_session(record: ProcessRecord) -> list[psutil.Process]:
    """Processes of the session that a recorded process led, also when it is gone: Ray's own overwrite their environment.

    A session's id is not given out again while the session lives; one whose leader is somebody else's is left alone, and so is
    whatever is older than the record or does not run from this installation.
    """
    if psutil.pid_exists(record.pid) and record.process() is None:
        return []
    found = []
    for pid in session_members(record.pid):
        try:
            process = psutil.Process(pid)
            if process.create_time() >= record.started and process.exe().startswith((sys.prefix, sys.base_prefix)):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _of_run(run_id: str) -> list[psutil.Process]:
    """Processes of ours that were started with this run's id (random, so that nobody else can carry it)."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(RUN_ID_VARIABLE) == run_id:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def _terminate(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
