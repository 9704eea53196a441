"""The cgroup of this process: its limit, its throttling, its pressure, and what it uses where it is the pod's own."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from workers.sampling.files import read_text
from workers.sampling.texts import (
    UNIFIED,
    cgroup_mounts,
    cgroup_paths,
    cpu_max_cores,
    group_folders,
    keyed,
    quota_cores,
    stalled_us,
    whole_number,
)

NANOSECONDS_PER_MICROSECOND = 1_000
# The list of a group's processes costs as much as all other readings together, and who is in a group seldom changes.
OWNERSHIP_READINGS = 10


@dataclass(frozen=True, slots=True)
class CgroupReading:
    """One reading; counters since the group was made. `cpu_us` and `memory_bytes` only where the group is the pod's own."""

    limit_cores: float | None
    periods: int | None
    throttled_periods: int | None
    cpu_us: int | None
    memory_bytes: int | None


class Cgroups:
    """Owns where the groups of this process are, which may change while it runs: it looks again at each reading.

    Does not own rates (the sampler makes them of two readings). Works with v1, v2, both at once, and neither.
    """

    def __init__(self, *, proc: str = "/proc") -> None:
        self._proc = proc
        self._groups: str | None = None
        self._folders: dict[str, list[PurePosixPath]] = {}
        self._own: dict[PurePosixPath, bool] = {}
        self._readings = 0

    def read(self, members: Set[int]) -> CgroupReading:
        """`members` are the ids of the pod's processes: a group in which others run tells nothing of the pod alone."""
        self._locate()
        cpu = self._folders.get("cpu") or self._folders.get(UNIFIED, [])
        is_v1 = "cpu" in self._folders
        limits = [cores for folder in cpu if (cores := _limit(folder, is_v1=is_v1)) is not None]
        stat = keyed(read_text(f"{cpu[0]}/cpu.stat") or "") if cpu else {}
        return CgroupReading(
            limit_cores=min(limits, default=None),
            periods=stat.get("nr_periods"),
            throttled_periods=stat.get("nr_throttled"),
            cpu_us=self._cpu_us(stat, members, is_v1=is_v1),
            memory_bytes=self._memory_bytes(members),
        )

    def stalled_us(self, resource: str) -> int | None:
        """Microseconds in which some task of the group (v2), or else of the machine, stalled for cpu, memory or io."""
        for folder in self._folders.get(UNIFIED, [])[:1]:
            if (text := read_text(f"{folder}/{resource}.pressure")) is not None:
                return stalled_us(text)
        return stalled_us(read_text(f"{self._proc}/pressure/{resource}") or "")

    def _locate(self) -> None:
        groups = read_text(f"{self._proc}/self/cgroup")
        self._readings += 1
        if groups != self._groups or self._readings % OWNERSHIP_READINGS == 0:
            self._own.clear()
        if groups == self._groups:
            return
        self._groups = groups
        mounts = cgroup_mounts(read_text(f"{self._proc}/self/mountinfo") or "")
        self._folders = {
            controller: group_folders(path, mounts[controller])
            for controller, path in cgroup_paths(groups or "").items()
            if controller in mounts
        }

    def _cpu_us(self, stat: dict[str, int], members: Set[int], *, is_v1: bool) -> int | None:
        group = self._own_folder("cpuacct" if is_v1 else UNIFIED, members)
        if group is None:
            return None
        if not is_v1:
            return stat.get("usage_usec")
        used_ns = whole_number(read_text(f"{group}/cpuacct.usage") or "")
        return None if used_ns is None else used_ns // NANOSECONDS_PER_MICROSECOND

    def _memory_bytes(self, members: Set[int]) -> int | None:
        """Without the page cache that the kernel takes back when somebody needs it."""
        is_v1 = "memory" in self._folders
        group = self._own_folder("memory" if is_v1 else UNIFIED, members)
        if group is None:
            return None
        used = whole_number(read_text(f"{group}/{'memory.usage_in_bytes' if is_v1 else 'memory.current'}") or "")
        cache = keyed(read_text(f"{group}/memory.stat") or "").get("total_inactive_file" if is_v1 else "inactive_file")
        return None if used is None or cache is None else max(0, used - cache)

    def _own_folder(self, controller: str, members: Set[int]) -> PurePosixPath | None:
        folders = self._folders.get(controller)
        if not folders:
            return None
        group = folders[0]
        if group not in self._own:
            inside = (read_text(f"{group}/cgroup.procs") or "").split()
            self._own[group] = bool(inside) and all(int(pid) in members for pid in inside if pid.isdecimal())
        return group if self._own[group] else None


def _limit(folder: PurePosixPath, *, is_v1: bool) -> float | None:
    if not is_v1:
        return cpu_max_cores(read_text(f"{folder}/cpu.max") or "")
    quota, period = (whole_number(read_text(f"{folder}/cpu.cfs_{name}_us") or "") for name in ("quota", "period"))
    return quota_cores(quota, period)
