"""What a platform leaves behind: found by family and by the run's id, not by its own records."""

from __future__ import annotations

import logging
import os

import psutil

from deploy.local.child import RUN_ID_VARIABLE

_log = logging.getLogger(__name__)


def family(pid: int | None = None) -> list[psutil.Process]:
    """Everything below a process (default: this one) at this moment; taken before a stop, to be looked for afterwards."""
    return psutil.Process(pid).children(recursive=True)


def left_over(before: list[psutil.Process], run_id: str) -> int:
    """Those of the family that still run, and whatever else carries the run's id in its environment (this process apart)."""
    left = {process for process in before if _runs(process)} | {p for p in psutil.process_iter() if _carries(p, run_id)}
    for process in left:
        _log.warning("left over: %s", process)
    return len(left)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _carries(process: psutil.Process, run_id: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(RUN_ID_VARIABLE) == run_id
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
