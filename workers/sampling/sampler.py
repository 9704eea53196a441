"""One sample of a node for each beat: readings of the kernel's counters, and the rates between two of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from rayline.reports import NodeLoad
from workers.sampling.cards import Cards
from workers.sampling.cgroups import CgroupReading, Cgroups
from workers.sampling.files import read_text
from workers.sampling.session_usage import SessionReading, SessionUsage
from workers.sampling.texts import CpuTicks, cpu_ticks, memory_used_share

_RESOURCES = ("cpu", "memory", "io")


@dataclass(frozen=True, slots=True)
class _Reading:
    """All counters at one moment (monotonic seconds)."""

    at: float
    host: CpuTicks | None
    group: CgroupReading
    session: SessionReading
    stalled_us: dict[str, int | None] = field(default_factory=dict)


class Sampler:
    """Owns the reading before this one. Does not own a clock, nor what only others know (clock skew, jobs in flight).

    Life cycle: `sample` any number of times, from one thread at a time; the first has no rates. May block on a sick disk.
    """

    def __init__(self, *, session: int, disk: str, cards: Cards, proc: str = "/proc") -> None:
        """`session` holds the pod's processes, `disk` is a folder on the node's own disk."""
        self._disk = disk
        self._cards = cards
        self._proc = proc
        self._cgroups = Cgroups(proc=proc)
        self._usage = SessionUsage(session=session, proc=proc)
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        self._before: _Reading | None = None

    def sample(self, now: float) -> NodeLoad:
        """What is true at `now` (monotonic seconds), rates over the time since the sample before."""
        session = self._usage.read()
        reading = _Reading(
            at=now,
            host=cpu_ticks(read_text(f"{self._proc}/stat") or ""),
            group=self._cgroups.read(session.members),
            session=session,
            stalled_us={resource: self._cgroups.stalled_us(resource) for resource in _RESOURCES},
        )
        before, self._before = self._before, reading
        group_bytes = reading.group.memory_bytes
        return NodeLoad(
            cores=self._cores(reading.group.limit_cores),
            host_cpu=None if before is None else _busy_share(before.host, reading.host),
            own_cpu=None if before is None else self._own_cpu(before, reading),
            host_memory=memory_used_share(read_text(f"{self._proc}/meminfo") or ""),
            own_memory_bytes=session.memory_bytes if group_bytes is None else group_bytes,
            throttled=None if before is None else _throttled(before.group, reading.group),
            cpu_pressure=_stalled(before, reading, "cpu"),
            memory_pressure=_stalled(before, reading, "memory"),
            io_pressure=_stalled(before, reading, "io"),
            disk_free=self._disk_free(),
            cards=self._cards.read(),
        )

    def _cores(self, limit: float | None) -> float:
        usable = float(len(os.sched_getaffinity(0)))
        return usable if limit is None else min(limit, usable)

    def _own_cpu(self, before: _Reading, after: _Reading) -> float | None:
        seconds = after.at - before.at
        if seconds <= 0:
            return None
        if before.group.cpu_us is not None and after.group.cpu_us is not None and after.group.cpu_us >= before.group.cpu_us:
            return (after.group.cpu_us - before.group.cpu_us) / 1e6 / seconds
        ticks = after.session.ticks
        return None if ticks is None else ticks / self._ticks_per_second / seconds

    def _disk_free(self) -> float | None:
        try:
            disk = os.statvfs(self._disk)
        except OSError:
            return None
        return disk.f_bavail / disk.f_blocks if disk.f_blocks else None


def _busy_share(before: CpuTicks | None, after: CpuTicks | None) -> float | None:
    if before is None or after is None or after.total <= before.total:
        return None
    return min(1.0, max(0.0, (after.busy - before.busy) / (after.total - before.total)))


def _throttled(before: CgroupReading, after: CgroupReading) -> float | None:
    """0.0 where no period passed: without a quota, or at rest, nothing is throttled."""
    counters = (before.periods, after.periods, before.throttled_periods, after.throttled_periods)
    if any(counter is None for counter in counters):
        return None
    periods_before, periods_after, throttled_before, throttled_after = (counter or 0 for counter in counters)
    periods = periods_after - periods_before
    if periods < 0 or throttled_after < throttled_before:
        return None  # another group than before
    return min(1.0, (throttled_after - throttled_before) / periods) if periods else 0.0


def _stalled(before: _Reading | None, after: _Reading, resource: str) -> float | None:
    if before is None or after.at <= before.at:
        return None
    first, last = before.stalled_us[resource], after.stalled_us[resource]
    if first is None or last is None or last < first:
        return None
    return min(1.0, (last - first) / 1e6 / (after.at - before.at))
