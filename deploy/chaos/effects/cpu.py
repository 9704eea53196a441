"""Less CPU for a pod: by its cgroup where that can be written, else by stopping and continuing it; and a noisy neighbour."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from deploy.chaos.effects.base import send

PERIOD_US: Final = 100_000
_UNIFIED: Final = Path("/sys/fs/cgroup")
_LEGACY: Final = Path("/sys/fs/cgroup/cpu")
_DUTY_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 1.0


class CpuGroup:
    """One cgroup with a limit of CPU (version 2 `cpu.max`, or version 1 `cpu.cfs_quota_us`).

    Owns the folder in the cgroup tree. Life: `make` -> `take` any processes -> `remove`, which gives them back.
    """

    def __init__(self, folder: Path, limit_file: str, limit: str) -> None:
        self._folder = folder
        self._limit_file = limit_file
        self._limit = limit

    @classmethod
    def make(cls, name: str, cores: float) -> CpuGroup | None:
        """A new group with its limit, or None where this machine allows none."""
        quota = round(cores * PERIOD_US)
        kinds = ((_UNIFIED, "cpu.max", f"{quota} {PERIOD_US}"), (_LEGACY, "cpu.cfs_quota_us", str(quota)))
        for root, limit_file, limit in kinds:
            group = cls(root / name, limit_file, limit)
            try:
                group._folder.mkdir()
            except OSError:
                continue
            try:
                # Opened without O_CREAT: only a controller makes this file.
                with (group._folder / limit_file).open("r+") as file:
                    file.write(limit)
                return group
            except OSError:
                group._folder.rmdir()
        return None

    @property
    def how(self) -> str:
        return f"{self._limit_file} {self._limit}"

    def take(self, pids: list[int]) -> None:
        """These processes, and what they will fork."""
        self._write(self._folder, pids)

    def remove(self) -> None:
        """Everybody goes back to the parent; the group is gone."""
        self._write(self._folder.parent, [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()])
        with suppress(OSError):
            self._folder.rmdir()  # a process of it may be ending at this moment

    @staticmethod
    def _write(folder: Path, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError, OSError):
                (folder / "cgroup.procs").write_text(str(pid))


@asynccontextmanager
async def throttled(name: str, pids: Callable[[], list[int]], cores: float, *, by_signals: bool = False) -> AsyncIterator[str]:
    """While open, all of `pids()` together get `cores`; says how. `by_signals`: each runs for that part of the time only."""
    group = None if by_signals else CpuGroup.make(name, cores)
    if group is None:
        async with _duty_cycle(pids, cores):
            yield f"SIGSTOP for {1 - min(1.0, cores):.0%} of each {_DUTY_SECONDS * 1000:.0f} ms"
        return
    try:
        group.take(pids())
        yield group.how
    finally:
        group.take(pids())
        group.remove()


@asynccontextmanager
async def _duty_cycle(pids: Callable[[], list[int]], cores: float) -> AsyncIterator[None]:
    async def alternate() -> None:
        stopped: list[int] = []
        looked_at = 0.0
        while True:
            if time.monotonic() - looked_at >= _LOOK_SECONDS:
                stopped, looked_at = pids(), time.monotonic()
            send(stopped, signal.SIGSTOP)
            try:
                await asyncio.sleep(_DUTY_SECONDS * (1 - min(1.0, cores)))
            finally:
                send(stopped, signal.SIGCONT)
            await asyncio.sleep(_DUTY_SECONDS * min(1.0, cores))

    task = asyncio.create_task(alternate(), name="duty cycle")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        send(pids(), signal.SIGCONT)


@asynccontextmanager
async def neighbour(pids: Callable[[], list[int]], processes: int) -> AsyncIterator[str]:
    """While it is open, `processes` busy ones share one core with all of `pids()`."""
    everywhere = os.sched_getaffinity(0)
    core = {max(everywhere)}
    _pin(pids(), core)
    busy = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-c", "while True: pass"), preexec_fn=lambda: os.sched_setaffinity(0, core)
        )
        for _ in range(processes)
    ]
    try:
        yield f"{processes} busy processes on core {max(everywhere)}"
    finally:
        for process in busy:
            process.kill()
            await process.wait()
        _pin(pids(), everywhere)


def _pin(pids: list[int], cores: set[int]) -> None:
    for pid in pids:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)
