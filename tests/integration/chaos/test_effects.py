"""What faults do to this machine is really done, and undone at its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.chaos.effects import cpu, network
from deploy.chaos.effects.base import Unavailable
from deploy.chaos.effects.cpu import CpuGroup, neighbour, throttled
from deploy.chaos.effects.disk import disk_full
from workers.cluster import own_ray_folder, ray_folder

pytestmark = pytest.mark.integration
MEASURED_SECONDS = 0.6


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes all the CPU it gets."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def groups_left() -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob("**/rayline-chaos-test-*"))


@pytest.mark.parametrize("by_cgroup", [True, False], ids=["cgroup", "duty-cycle"])
async def test_a_throttled_process_gets_its_part_and_all_again_afterwards(
    busy: subprocess.Popen[bytes], by_cgroup: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_cgroup:
        group = CpuGroup.make("rayline-chaos-probe", 0.3)
        if group is None:
            pytest.skip("no cgroup of CPU can be written here")
        group.remove()
    else:
        monkeypatch.setattr(cpu.CpuGroup, "make", lambda *_: None)
    async with throttled(f"rayline-chaos-test-{busy.pid}", lambda: [busy.pid], 0.2) as how:
        before = cpu_seconds(busy.pid)
        await asyncio.sleep(MEASURED_SECONDS)  # the time over which CPU is measured
        assert cpu_seconds(busy.pid) - before < 0.35 * MEASURED_SECONDS + 0.05
        assert ("SIGSTOP" in how) is not by_cgroup
    assert psutil.Process(busy.pid).status() != psutil.STATUS_STOPPED
    assert groups_left() == []


async def test_a_noisy_neighbour_shares_one_core_and_leaves(busy: subprocess.Popen[bytes]) -> None:
    everywhere = os.sched_getaffinity(busy.pid)
    async with neighbour(lambda: [busy.pid], 2):
        assert len(os.sched_getaffinity(busy.pid)) == 1
        others = [p for p in psutil.Process().children() if p.pid != busy.pid and "while True: pass" in p.cmdline()]
        assert len(others) == 2
    assert os.sched_getaffinity(busy.pid) == everywhere
    assert all(not process.is_running() for process in others)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_a_full_disk_takes_no_new_file_and_is_as_before_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pod = ray_folder("pod")
    logs = pod / "session_1" / "logs"
    logs.mkdir(parents=True)
    (logs / "old.log").write_text("old")
    (pod / "session_latest").symlink_to(pod / "session_1")
    own_ray_folder(pod, 4711)
    async with disk_full(4711):
        with pytest.raises(OSError, match="No space left"):
            (logs / "new.log").write_text("x" * 10_000)
    assert [path.name for path in logs.iterdir()] == ["old.log"]
    with pytest.raises(Unavailable, match="session 4712"):
        async with disk_full(4712):
            pytest.fail("there is no such pod")


NETWORK_PROBE = textwrap.dedent(
    """
    import asyncio, os, socket, sys, threading, time
    from deploy.chaos.effects.network import Direction, Disturbance, PodNetwork

    def serve(host, port, answer=b"hi"):
        listener = socket.create_server((host, port))
        def run():
            while True:
                connection = listener.accept()[0]
                connection.sendall(answer)
                if answer != b"hi":
                    connection.close()
        threading.Thread(target=run, daemon=True).start()

    def reaches(host, port):
        try:
            with socket.create_connection((host, port), timeout=0.4) as connection:
                connection.settimeout(0.4)
                return connection.recv(2) == b"hi"
        except OSError:
            return False

    def connects(host, port):
        try:
            socket.create_connection((host, port), timeout=0.4).close()
            return True
        except OSError:
            return False

    def seconds_of_a_megabyte():
        began = time.monotonic()
        with socket.create_connection(MUCH, timeout=20) as connection:
            while connection.recv(65536):
                pass
        return time.monotonic() - began

    POD, OTHER, MUCH = ("127.77.0.5", 5000), ("127.0.0.1", 5001), ("127.77.0.5", 5002)
    os.system("ip link set lo up")
    from_pod, to_pod = os.pipe(), os.pipe()
    pod = os.fork()
    if pod == 0:
        os.setsid()
        os.read(to_pod[0], 1)
        serve(*POD)
        serve(*MUCH, b"x" * 2**20)
        while True:
            os.write(from_pod[1], b"r")
            os.read(to_pod[0], 1)
            os.write(from_pod[1], b"%d%d%d" % (reaches(*POD), reaches(*OTHER), connects(*OTHER)))

    def look():
        os.write(to_pod[1], b"g")
        *inside, connected = os.read(from_pod[0], 3).decode()
        os.read(from_pod[0], 1)
        return "".join(inside) + "%d%d:" % (reaches(*POD), reaches(*OTHER)) + connected + "%d" % connects(*POD)

    async def main():
        net = PodNetwork("test-%d" % os.getpid())
        net.open()
        try:
            net.enter(pod, [pod])
            os.write(to_pod[1], b"g")
            os.read(from_pod[0], 1)
            serve(*OTHER)
            print("before", look())
            async with net.disturbed(pod, Disturbance(loss_percent=100)):
                print("cut", look())
            async with net.disturbed(pod, Disturbance(loss_percent=100, direction=Direction.TO)):
                print("deaf", look())
            async with net.disturbed(pod, Disturbance(loss_percent=100, direction=Direction.FROM)):
                print("dumb", look())
            wide = seconds_of_a_megabyte()
            async with net.disturbed(pod, Disturbance(rate_mbit=3, direction=Direction.FROM)):
                narrow = seconds_of_a_megabyte()
            # A megabyte takes 2.8 s at 3 Mbit/s, less the second that is let through at first.
            print("narrow" if wide < 1.0 < 1.5 < narrow else f"{wide} {narrow}")
            print("after", look())
        finally:
            os.kill(pod, 9)
            os.waitpid(pod, 0)
            net.close()

    asyncio.run(main())
    """
)


@pytest.mark.skipif(network.missing() is not None, reason=str(network.missing()))
def test_a_pods_packets_are_cut_off_both_ways_or_one_way_or_narrowed_and_those_inside_it_are_not() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", NETWORK_PROBE], capture_output=True, text=True, check=False, timeout=60
    )
    # Answers from inside to inside, inside to outside, outside to inside, outside to outside; then who still opens a connection:
    # inside to outside, outside to inside.
    seen = done.stdout.split()
    assert seen[:4] == ["before", "1111:11", "cut", "1001:00"], done.stderr
    assert seen[4:8] == ["deaf", "1001:10", "dumb", "1001:01"], done.stderr
    assert seen[8:] == ["narrow", "after", "1111:11"], done.stderr
