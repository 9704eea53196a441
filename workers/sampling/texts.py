"""The texts of /proc and /sys/fs/cgroup as values. Pure; what a text does not say is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

UNIFIED = ""
"""The name of cgroup v2's one hierarchy among the controllers of v1."""


@dataclass(frozen=True, slots=True)
class CpuTicks:
    """Of the whole machine since its start, in clock ticks; time stolen by a hypervisor is busy."""

    busy: int
    total: int


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One process: its session, CPU time since its start in clock ticks, and whether it is dead already."""

    session: int
    ticks: int
    dead: bool


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a cgroup hierarchy is mounted, and which of its groups is at the mount point."""

    point: PurePosixPath
    root: PurePosixPath


def cpu_ticks(stat: str) -> CpuTicks | None:
    """From /proc/stat."""
    fields = stat.partition("\n")[0].split()
    if len(fields) < 6 or fields[0] != "cpu":
        return None
    # Guest time is part of user time already.
    values = _integers(fields[1:9])
    if values is None:
        return None
    total = sum(values)
    return CpuTicks(busy=total - values[3] - values[4], total=total)


def memory_used_share(meminfo: str) -> float | None:
    """From /proc/meminfo: the share that a new process could not have."""
    values = keyed(meminfo)
    total, available = values.get("MemTotal:"), values.get("MemAvailable:")
    if not total or available is None:
        return None
    return min(1.0, max(0.0, 1 - available / total))


def keyed(text: str) -> dict[str, int]:
    """Lines of a name and a whole number (cpu.stat, memory.stat, meminfo); other lines are left out."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[1].isdecimal():
            found[fields[0]] = int(fields[1])
    return found


def whole_number(text: str) -> int | None:
    """A file that holds one number; None for anything else (`max`, nothing)."""
    values = _integers([text.strip()])
    return None if values is None else values[0]


def stalled_us(pressure: str) -> int | None:
    """From a PSI file: microseconds in which some task stalled, since the start."""
    for line in pressure.splitlines():
        if line.startswith("some "):
            return whole_number(line.rpartition("total=")[2]) if "total=" in line else None
    return None


def quota_cores(quota: int | None, period: int | None) -> float | None:
    """The cores of a CPU quota; None where there is no limit (cgroup v1 says -1) or it cannot be read."""
    if quota is None or not period or quota <= 0:
        return None
    return quota / period


def cpu_max_cores(cpu_max: str) -> float | None:
    """From cgroup v2's cpu.max: `max 100000` or `50000 100000`."""
    fields = cpu_max.split()
    if len(fields) != 2:
        return None
    return quota_cores(whole_number(fields[0]), whole_number(fields[1]))


def process_stat(stat: str) -> ProcessStat | None:
    """From /proc/PID/stat; the name in it may hold anything, brackets and spaces included."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 13:
        return None
    values = _integers([fields[3], fields[11], fields[12]])
    return None if values is None else ProcessStat(session=values[0], ticks=values[1] + values[2], dead=fields[0] in "ZX")


def private_pages(statm: str) -> int | None:
    """From /proc/PID/statm: resident pages that are not shared with a file or another process."""
    values = _integers(statm.split()[:3])
    return None if values is None or len(values) < 3 else max(0, values[1] - values[2])


def cgroup_paths(cgroup: str) -> dict[str, PurePosixPath]:
    """From /proc/PID/cgroup: the group in each hierarchy, by controller; `UNIFIED` is v2."""
    paths = {}
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon or not number.isdecimal():
            continue
        for controller in controllers.split(","):
            paths[controller] = PurePosixPath(path)
    return paths


def cgroup_mounts(mountinfo: str) -> dict[str, Mount]:
    """From /proc/PID/mountinfo: the hierarchies' mounts, by controller; `UNIFIED` is v2."""
    mounts = {}
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        mount = Mount(point=PurePosixPath(fields[4]), root=PurePosixPath(fields[3]))
        if kind[0] == "cgroup2":
            mounts[UNIFIED] = mount
        elif kind[0] == "cgroup":
            mounts.update(dict.fromkeys(kind[2].split(","), mount))
    return mounts


def group_folders(path: PurePosixPath, mount: Mount) -> list[PurePosixPath]:
    """The folder of a group and those of all groups above it that can be seen, the group's own first.

    In a container the mount may show the container's own group as its root, under a path that means nothing inside.
    """
    inside = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    folder = mount.point / inside
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount.point))]


def _integers(texts: list[str]) -> list[int] | None:
    try:
        return [int(text) for text in texts]
    except ValueError:
        return None
