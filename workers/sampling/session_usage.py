"""What the processes of one session use together: the pod's own usage where it has no cgroup of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass

from workers.sampling.files import read_text
from workers.sampling.texts import private_pages, process_stat


@dataclass(frozen=True, slots=True)
class SessionReading:
    """`members` are ids of living processes; `ticks` is the CPU time since the last reading (clock ticks), None at the first."""

    members: frozenset[int]
    ticks: int | None
    memory_bytes: int | None


class SessionUsage:
    """Owns what is known of each process, so that only new ones are looked at twice and foreign ones never again.

    A process leaves a session but never joins one: who was foreign stays foreign for as long as its id lives.
    """

    def __init__(self, *, session: int, proc: str = "/proc") -> None:
        self._session = session
        self._proc = proc
        self._ticks: dict[int, int] = {}
        self._foreign: set[int] = set()
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._first = True

    def read(self) -> SessionReading:
        """One look at all members; what a process used between its last look and its end is not seen."""
        pids = {int(name) for name in os.listdir(self._proc) if name.isdecimal()}  # noqa: PTH208 - a tenth of iterdir's cost
        self._foreign &= pids
        ticks: dict[int, int] = {}
        used, pages = 0, 0
        for pid in pids - self._foreign:
            stat = process_stat(read_text(f"{self._proc}/{pid}/stat") or "")
            if stat is None:
                continue
            if stat.session != self._session:
                self._foreign.add(pid)
            elif not stat.dead:
                ticks[pid] = stat.ticks
                used += max(0, stat.ticks - self._ticks.get(pid, 0))
                pages += private_pages(read_text(f"{self._proc}/{pid}/statm") or "") or 0
        self._ticks = ticks
        members = frozenset(ticks)
        first, self._first = self._first, False
        return SessionReading(
            members=members,
            ticks=used if members and not first else None,
            memory_bytes=pages * self._page_bytes if members else None,
        )
