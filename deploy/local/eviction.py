"""Taking a pod away from outside of the launcher, as a cloud does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from deploy.local.child import descendants, kill_all
from deploy.local.state import StateFolder
from deploy.local.supervision import Role
from rayline.errors import LaunchError
from rayline.yaml_lines import suggestion


def evict_pod(path: Path, pod: str, *, grace_seconds: float, on_notice: Callable[[], None]) -> float:
    """SIGTERM, up to `grace_seconds`, then SIGKILL for the pod and all below it; returns after how many seconds it was gone.

    Raises:
        LaunchError: no platform runs in the folder, or no pod of that name.
    """
    state = StateFolder(path).read()
    if state is None:
        raise LaunchError(f"no platform runs in {path}: start one with `rayline up`")
    pods = {record.name: record for record in state.processes if record.role == Role.POD}
    process = pods[pod].process() if pod in pods else None
    if process is None:
        raise LaunchError(f"no pod {pod!r} runs{suggestion(pod, pods)}; running: {', '.join(pods) or 'none'}")
    begun = time.monotonic()
    tree = descendants(process.pid)
    try:
        process.terminate()
        on_notice()
        process.wait(timeout=grace_seconds)
    except psutil.TimeoutExpired:
        tree = [process, *tree, *descendants(process.pid)]
    except psutil.NoSuchProcess:
        pass
    kill_all(tree)
    return time.monotonic() - begun
