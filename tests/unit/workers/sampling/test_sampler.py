"""Samples of machines that exist only as files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from rayline.reports import CardLoad, NodeLoad
from workers.sampling import Sampler
from workers.sampling.cards import NoCards, NvidiaCards

SESSION = 100


class Machine:
    """A machine as files below a folder: /proc and its cgroups."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.cgroup = root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroup.mkdir()

    def write(self, path: str, text: str) -> None:
        target = self.proc.parent / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def process(self, pid: int, *, session: int, ticks: int, private_pages: int = 0) -> None:
        self.write(f"proc/{pid}/stat", f"{pid} (worker) S 1 {pid} {session} 0 -1 4 5 6 7 8 {ticks} 0 0 0")
        self.write(f"proc/{pid}/statm", f"1000 {private_pages + 50} 50 1 0 1 0")

    def unified(self, group: str = "/pod") -> None:
        self.write("proc/self/cgroup", f"0::{group}\n")
        self.write("proc/self/mountinfo", f"41 31 0:38 / {self.cgroup} rw - cgroup2 cgroup2 rw\n")

    def sampler(self) -> Sampler:
        return Sampler(session=SESSION, disk=str(self.proc), cards=NoCards(), proc=str(self.proc))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_that_tells_nothing_has_only_unknown_facts(machine: Machine) -> None:
    sampler = machine.sampler()
    sampler.sample(1.0)
    told = sampler.sample(2.0)
    assert replace(told, cores=None, disk_free=None) == NodeLoad()


def test_the_first_sample_has_no_rates_and_the_second_has(machine: Machine) -> None:
    machine.write("proc/stat", "cpu  0 0 0 1000 0 0 0 0\n")
    machine.write("proc/pressure/cpu", "some avg10=0 avg60=0 avg300=0 total=1000000\n")
    machine.process(100, session=SESSION, ticks=50)
    sampler = machine.sampler()
    first = sampler.sample(10.0)
    assert (first.host_cpu, first.own_cpu, first.cpu_pressure) == (None, None, None)
    machine.write("proc/stat", "cpu  150 0 0 1050 0 0 0 0\n")
    machine.write("proc/pressure/cpu", "some avg10=0 avg60=0 avg300=0 total=1500000\n")
    machine.process(100, session=SESSION, ticks=250)
    second = sampler.sample(12.0)
    assert (second.host_cpu, second.own_cpu, second.cpu_pressure) == (0.75, 1.0, 0.25)
    assert (second.memory_pressure, second.io_pressure) == (None, None)


def test_foreign_processes_do_not_count_and_new_ones_count_from_their_start(machine: Machine) -> None:
    machine.process(100, session=SESSION, ticks=10, private_pages=3)
    machine.process(7, session=7, ticks=10, private_pages=1000)
    sampler = machine.sampler()
    sampler.sample(0.0)
    machine.process(7, session=7, ticks=9000)
    machine.process(101, session=SESSION, ticks=40, private_pages=2)
    told = sampler.sample(1.0)
    assert told.own_cpu == pytest.approx(0.4)
    assert told.own_memory_bytes is not None
    assert told.own_memory_bytes % 5 == 0
    assert told.own_memory_bytes // 5 >= 4096


def test_a_group_of_its_own_tells_what_the_pod_uses(machine: Machine) -> None:
    machine.unified()
    machine.process(100, session=SESSION, ticks=0)
    machine.write("cgroup/pod/cgroup.procs", "100\n")
    machine.write("cgroup/pod/cpu.max", "50000 100000\n")
    machine.write("cgroup/cpu.max", "max 100000\n")
    machine.write("cgroup/pod/memory.current", "5000\n")
    machine.write("cgroup/pod/memory.stat", "anon 1\ninactive_file 2000\n")
    machine.write("cgroup/pod/cpu.stat", "usage_usec 1000000\nnr_periods 10\nnr_throttled 0\n")
    sampler = machine.sampler()
    sampler.sample(0.0)
    machine.write("cgroup/pod/cpu.stat", "usage_usec 1400000\nnr_periods 20\nnr_throttled 3\n")
    told = sampler.sample(1.0)
    assert (told.cores, told.own_cpu, told.throttled, told.own_memory_bytes) == (0.5, 0.4, 0.3, 3000)


def test_a_group_shared_with_others_tells_nothing_of_the_pod_but_its_limit(machine: Machine) -> None:
    machine.unified("/")
    machine.process(100, session=SESSION, ticks=0)
    machine.process(7, session=7, ticks=0)
    machine.write("cgroup/cgroup.procs", "7\n100\n")
    machine.write("cgroup/cpu.stat", "usage_usec 0\n")
    machine.write("cgroup/memory.current", "5000\n")
    machine.write("cgroup/memory.stat", "inactive_file 0\n")
    sampler = machine.sampler()
    sampler.sample(0.0)
    machine.write("cgroup/cpu.stat", "usage_usec 999999\n")
    told = sampler.sample(1.0)
    assert told.own_cpu == 0.0
    assert told.own_memory_bytes != 5000
    assert told.throttled is None


def test_the_tightest_limit_on_the_way_up_counts(machine: Machine) -> None:
    machine.unified("/slice/pod")
    machine.write("cgroup/slice/pod/cpu.max", "max 100000\n")
    machine.write("cgroup/slice/cpu.max", "25000 100000\n")
    assert machine.sampler().sample(0.0).cores == 0.25


def test_a_pod_moved_into_a_throttled_group_of_cgroup_v1_sees_it_at_once(machine: Machine) -> None:
    machine.write("proc/self/mountinfo", f"32 31 0:29 / {machine.cgroup} rw - cgroup cgroup rw,cpu,cpuacct\n")
    machine.write("proc/self/cgroup", "2:cpu,cpuacct:/\n")
    machine.process(100, session=SESSION, ticks=0)
    machine.process(7, session=7, ticks=0)
    machine.write("cgroup/cgroup.procs", "7\n100\n")
    machine.write("cgroup/cpu.cfs_quota_us", "-1\n")
    machine.write("cgroup/cpu.cfs_period_us", "100000\n")
    machine.write("cgroup/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
    sampler = machine.sampler()
    assert (sampler.sample(0.0).cores or 0) >= 1
    machine.write("proc/self/cgroup", "2:cpu,cpuacct:/slow\n")
    machine.write("cgroup/slow/cgroup.procs", "100\n")
    machine.write("cgroup/slow/cpu.cfs_quota_us", "30000\n")
    machine.write("cgroup/slow/cpu.cfs_period_us", "100000\n")
    machine.write("cgroup/slow/cpu.stat", "nr_periods 4\nnr_throttled 4\n")
    machine.write("cgroup/slow/cpuacct.usage", "1000000000\n")
    assert sampler.sample(1.0).cores == 0.3
    machine.write("cgroup/slow/cpu.stat", "nr_periods 14\nnr_throttled 13\n")
    machine.write("cgroup/slow/cpuacct.usage", "1300000000\n")
    told = sampler.sample(2.0)
    assert told.throttled == pytest.approx(0.9)
    assert told.own_cpu == pytest.approx(0.3)


def test_without_a_quota_nothing_is_throttled(machine: Machine) -> None:
    machine.unified()
    machine.write("cgroup/pod/cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0\n")
    sampler = machine.sampler()
    sampler.sample(0.0)
    assert sampler.sample(1.0).throttled == 0.0


def test_counters_that_went_back_are_not_a_rate(machine: Machine) -> None:
    machine.write("proc/stat", "cpu  500 0 0 1000 0 0 0 0\n")
    machine.write("proc/pressure/io", "some total=900\n")
    sampler = machine.sampler()
    sampler.sample(0.0)
    machine.write("proc/stat", "cpu  1 0 0 2 0 0 0 0\n")
    machine.write("proc/pressure/io", "some total=1\n")
    told = sampler.sample(1.0)
    assert (told.host_cpu, told.io_pressure) == (None, None)


def test_two_samples_at_one_moment_give_no_rate(machine: Machine) -> None:
    machine.write("proc/pressure/cpu", "some total=900\n")
    machine.process(100, session=SESSION, ticks=5)
    sampler = machine.sampler()
    sampler.sample(5.0)
    told = sampler.sample(5.0)
    assert (told.own_cpu, told.cpu_pressure) == (None, None)


def test_a_disk_that_is_not_there_is_unknown(machine: Machine) -> None:
    sampler = Sampler(session=SESSION, disk=str(machine.proc / "nowhere"), cards=NoCards(), proc=str(machine.proc))
    assert sampler.sample(0.0).disk_free is None


def test_cards_that_stop_answering_stay_known_with_an_unknown_utilisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'NVIDIA A10, 55'\n")
    command.chmod(0o755)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    cards = NvidiaCards(command=str(command))
    assert cards.read() == (CardLoad("NVIDIA A10", 0.55),)
    command.write_text("#!/bin/sh\nexit 9\n")
    now[0] = 1.0
    assert cards.read() == (CardLoad("NVIDIA A10", 0.55),)
    now[0] = 6.0
    assert cards.read() == (CardLoad("NVIDIA A10", None),)


def test_this_machine_tells_what_every_linux_does() -> None:
    sampler = Sampler(session=1, disk="/", cards=NoCards())
    sampler.sample(time.monotonic())
    told = sampler.sample(time.monotonic() + 1)
    assert told.cores is not None
    assert told.host_memory is not None
    assert told.disk_free is not None
