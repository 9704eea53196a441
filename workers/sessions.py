"""Processes of one session (a local pod or head): Ray puts every worker into a process group of its own, but not into another
session, so that the session is what belongs together."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path

from rayline.errors import ClusterError

_POLL_SECONDS = 0.02


def session_members(session: int) -> list[int]:
    """Ids of the living processes of a session (zombies are dead)."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _ppid, _group, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(sid) == session and state not in "ZX":
            members.append(int(entry.name))
    return members


def signal_session(session: int, number: signal.Signals, *, spare: int | None = None) -> None:
    """Send a signal to every process of a session but `spare`. SIGKILL is repeated until nothing new was forked meanwhile."""
    while members := [pid for pid in session_members(session) if pid != spare]:
        for pid in members:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        if number != signal.SIGKILL:
            return
        time.sleep(_POLL_SECONDS)


def wait_session_end(session: int, *, timeout_seconds: float, spare: int | None = None) -> bool:
    """True as soon as nothing of a session lives but `spare`."""
    until = time.monotonic() + timeout_seconds
    while any(pid != spare for pid in session_members(session)):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def lead_session() -> None:
    """Make this process the leader of a session of its own; raises ClusterError when it cannot become one."""
    if os.getsid(0) == os.getpid():
        return
    if os.getpgrp() == os.getpid():
        raise ClusterError("a pod's agent leads its own session, but leads a process group of another: start it with `setsid`")
    os.setsid()


def lead_group() -> None:
    """Make this process the leader of a process group (in its session), unless it is one."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


def end_session_with(parent: int) -> None:
    """SIGKILL the own session as soon as process `parent` has ended, whichever of its threads started us."""

    def watch(fd: int) -> None:
        select.select([fd], [], [])
        signal_session(os.getsid(0), signal.SIGKILL)

    try:
        fd = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    threading.Thread(target=watch, args=(fd,), name="rayline-parent-watch", daemon=True).start()
