"""CPU seconds of process trees, by role, from the operating system's own counters."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants that are alive; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(processes: Iterable[psutil.Process], role_of: Callable[[psutil.Process], str]) -> dict[str, float]:
    """User and system seconds since each process started, summed by role; processes that end meanwhile are left out."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for process in processes:
        try:
            times = process.cpu_times()
            seconds[role_of(process)] += times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return dict(seconds)


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Seconds between two readings, by role."""
    return {role: round(max(0.0, seconds - before.get(role, 0.0)), 4) for role, seconds in after.items()}


def ray_role(driver_pid: int) -> Callable[[psutil.Process], str]:
    """Roles inside a program that uses Ray: the driver is the ``lane``, actors are ``workers``, the rest is ``ray``."""

    def role(process: psutil.Process) -> str:
        if process.pid == driver_pid:
            return "lane"
        return "workers" if is_ray_worker(process) else "ray"

    return role


def is_ray_worker(process: psutil.Process) -> bool:
    """Whether the process runs actors or tasks; Ray names it after them."""
    return "".join(process.cmdline()[:1]).startswith("ray::")
