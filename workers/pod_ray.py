"""The Ray node of one pod: `ray start` as a child, its end as soon as it comes, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rayline.waits import news_by
from workers.sessions import session_members, signal_session, wait_session_end

STOP_SECONDS: Final = 2.0
# How often to look for the raylet until it is there.
LOOK_SECONDS: Final = 0.5


class PodRay:
    """Owns the processes of the session but its leader: all of them come from `ray start`.

    Life cycle: runs from construction; `wait_end` returns when it ended by itself; `stop` (blocking) ends it.
    """

    def __init__(self, *, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", env=dict(environment))

    async def wait_end(self) -> str:
        """Until Ray ended by itself; why, as far as it can be told.

        The raylet is watched directly: `ray start` looks after it only once a second, and a node without one takes no more work.
        """
        ended = asyncio.Event()
        with _watched(self._process.pid, ended.set):
            raylet = await self._find_raylet(ended)
            if raylet is None:
                return self._exit()
            with _watched(raylet, ended.set):
                await ended.wait()
        return self._exit() if self._process.poll() is not None else f"its raylet (process {raylet}) ended"

    def stop(self) -> None:
        """SIGTERM, up to 2 s, then SIGKILL for all that is left of the session but this process."""
        me, session = os.getpid(), os.getsid(0)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            wait_session_end(session, timeout_seconds=STOP_SECONDS, spare=me)
        signal_session(session, signal.SIGKILL, spare=me)
        self._process.wait()

    async def _find_raylet(self, ended: asyncio.Event) -> int | None:
        while not ended.is_set():
            raylet = await asyncio.to_thread(_raylet_of, os.getsid(0))
            if raylet is not None:
                return raylet
            await news_by(ended, time.monotonic() + LOOK_SECONDS)
        return None

    def _exit(self) -> str:
        return f"ray ended with exit code {self._process.wait()}"


def _raylet_of(session: int) -> int | None:
    for pid in session_members(session):
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                return pid
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


@contextmanager
def _watched(pid: int, on_end: Callable[[], None]) -> Iterator[None]:
    """Call `on_end` when a process ends; at once when it is gone already."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        on_end()
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, on_end)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        os.close(fd)
