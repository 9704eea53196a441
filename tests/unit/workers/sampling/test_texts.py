"""The kernel's texts as recorded on machines of many kinds, and in strange states."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from workers.sampling.cards import parse_cards
from workers.sampling.texts import (
    UNIFIED,
    CpuTicks,
    Mount,
    ProcessStat,
    cgroup_mounts,
    cgroup_paths,
    cpu_max_cores,
    cpu_ticks,
    group_folders,
    keyed,
    memory_used_share,
    private_pages,
    process_stat,
    quota_cores,
    stalled_us,
)


def test_time_stolen_by_a_hypervisor_is_busy_and_waiting_for_a_disk_is_not() -> None:
    assert cpu_ticks("cpu  10 20 30 400 50 6 7 80 9 9\ncpu0 1 1 1 1\n") == CpuTicks(busy=10 + 20 + 30 + 6 + 7 + 80, total=603)


@pytest.mark.parametrize("text", ["", "intr 5", "cpu  1 2", "cpu  a b c d e f g h"])
def test_a_cpu_line_that_is_none_is_unknown(text: str) -> None:
    assert cpu_ticks(text) is None


def test_memory_is_what_a_new_process_could_not_have() -> None:
    assert memory_used_share("MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\n") == pytest.approx(0.6)


@pytest.mark.parametrize("text", ["", "MemTotal: 1000 kB\nMemFree: 500 kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n"])
def test_a_kernel_that_does_not_tell_what_is_available_leaves_memory_unknown(text: str) -> None:
    assert memory_used_share(text) is None


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", None), ("50000 100000\n", 0.5), ("400000 100000\n", 4.0), ("", None), ("max", None), ("0 100000", None)],
)
def test_a_quota_of_cgroup_v2(text: str, cores: float | None) -> None:
    assert cpu_max_cores(text) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"), [(-1, 100_000, None), (30_000, 100_000, 0.3), (None, 1, None), (5, 0, None)]
)
def test_a_quota_of_cgroup_v1(quota: int | None, period: int | None, cores: float | None) -> None:
    assert quota_cores(quota, period) == cores


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("some avg10=8.22 avg60=20.16 avg300=13.64 total=3445188460\nfull avg10=0.00 avg60=0 avg300=0 total=7\n", 3_445_188_460),
        ("full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", None),
        ("some avg10=0.00\n", None),
        ("", None),
    ],
)
def test_pressure_is_the_time_in_which_some_task_stalled(text: str, total: int | None) -> None:
    assert stalled_us(text) == total


def test_a_process_may_have_any_name() -> None:
    text = "77 (a) b (c) S 1 2 33 0 -1 4194560 5 6 7 8 120 30 9 9 20 0 1 0 12 1 1"
    assert process_stat(text) == ProcessStat(session=33, ticks=150, dead=False)
    assert process_stat("77 (x) Z 1 2 33 0 -1 4 5 6 7 8 120 30") == ProcessStat(session=33, ticks=150, dead=True)
    assert process_stat("") is None
    assert process_stat("77 (x) S 1") is None


def test_private_memory_leaves_out_what_is_shared() -> None:
    assert private_pages("1000 300 100 5 0 200 0\n") == 200
    assert private_pages("") is None


def test_words_in_a_list_of_numbers_are_left_out() -> None:
    assert keyed("nr_periods 5\nodd\nnr_throttled max\nusage_usec 7\n") == {"nr_periods": 5, "usage_usec": 7}


V1 = """\
9:name=systemd:/
4:memory:/process_api/aac8
2:cpu,cpuacct:/docker/abc
0::/
"""
V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
a line that is none
"""


def test_both_generations_of_cgroups_are_found_side_by_side() -> None:
    paths, mounts = cgroup_paths(V1 + "nonsense\n"), cgroup_mounts(V1_MOUNTS)
    assert paths["memory"] == PurePosixPath("/process_api/aac8")
    assert paths["cpu"] == paths["cpuacct"] == PurePosixPath("/docker/abc")
    assert paths[UNIFIED] == PurePosixPath("/")
    assert mounts["cpu"] == mounts["cpuacct"]
    assert mounts[UNIFIED].point == PurePosixPath("/sys/fs/cgroup/unified")
    assert [str(folder) for folder in group_folders(paths["memory"], mounts["memory"])] == [
        "/sys/fs/cgroup/memory/process_api/aac8",
        "/sys/fs/cgroup/memory/process_api",
        "/sys/fs/cgroup/memory",
    ]


def test_a_container_that_sees_its_own_group_as_the_root_finds_it_there() -> None:
    bound = Mount(point=PurePosixPath("/sys/fs/cgroup/cpu"), root=PurePosixPath("/docker/abc"))
    assert group_folders(PurePosixPath("/docker/abc"), bound) == [PurePosixPath("/sys/fs/cgroup/cpu")]
    assert group_folders(PurePosixPath("/elsewhere"), bound) == [PurePosixPath("/sys/fs/cgroup/cpu")]
    namespaced = Mount(point=PurePosixPath("/sys/fs/cgroup"), root=PurePosixPath("/"))
    assert group_folders(PurePosixPath("/"), namespaced) == [PurePosixPath("/sys/fs/cgroup")]
    assert group_folders(PurePosixPath("/../other"), namespaced) == [PurePosixPath("/sys/fs/cgroup")]


def test_a_card_that_does_not_tell_its_utilisation_has_none() -> None:
    cards = parse_cards("NVIDIA A10, 40\nTesla T4, [N/A]\n\nA, B, 7\n")
    assert [(card.kind, card.utilisation) for card in cards] == [("NVIDIA A10", 0.4), ("Tesla T4", None), ("A, B", 0.07)]
