"""Who yields the processor to whom: a pod's Ray node that starts yields to what feeds the jobs, until it serves itself.

On a machine with few cores the start of a cluster, some ten processes that import Python, would otherwise take what lanes need.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

from workers.sessions import session_members

# Added to the nice value of a pod's processes while it starts. As much as running jobs have: on a busy machine one that starts
# must get on, too, or it never brings relief.
POD_START_NICE: Final = 5
_CAP_SYS_NICE: Final = 23


def yield_while_starting(nice: int) -> None:
    """Lower this process, and all that it starts from now on, where that can be undone (by root, or as RLIMIT_NICE allows)."""
    if may_yield():
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + nice)


def may_yield() -> bool:
    """Whether this process could take back what it gives."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return _has_capability(_CAP_SYS_NICE) or soft == resource.RLIM_INFINITY or 20 - soft <= os.getpriority(os.PRIO_PROCESS, 0)


def yield_no_more(root: int, session: int) -> None:
    """A session whose `root` started below us serves now: raise all of it by as much as makes `root` our equal.

    Blocks for some milliseconds; raises PermissionError.
    """
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(ProcessLookupError):
        lower = os.getpriority(os.PRIO_PROCESS, root) - ours
        if lower > 0:
            # Twice: what was forked meanwhile inherited the low priority. The root comes last, as we measure by it.
            for _ in range(2):
                for pid in session_members(session):
                    if pid != root:
                        _raise_threads(pid, at_least=ours + lower, by=lower)
            _raise_threads(root, at_least=ours + lower, by=lower)


def _raise_threads(pid: int, *, at_least: int, by: int) -> None:
    """Linux keeps a nice value for each thread."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                nice = os.getpriority(os.PRIO_PROCESS, int(task.name))
                if nice >= at_least:
                    os.setpriority(os.PRIO_PROCESS, int(task.name), nice - by)


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> number & 1)
    return False
