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
    import asyncio, os, socket, sys, threading
    from deploy.chaos.effects.network import Disturbance, PodNetwork

    def serve(host, port):
        listener = socket.create_server((host, port))
        def run():
            while True:
                listener.accept()[0].sendall(b"hi")
        threading.Thread(target=run, daemon=True).start()

    def reaches(host, port):
        try:
            with socket.create_connection((host, port), timeout=0.4) as connection:
                connection.settimeout(0.4)
                return connection.recv(2) == b"hi"
        except OSError:
            return False

    POD, OTHER = ("127.77.0.5", 5000), ("127.0.0.1", 5001)
    os.system("ip link set lo up")
    from_pod, to_pod = os.pipe(), os.pipe()
    pod = os.fork()
    if pod == 0:
        os.setsid()
        os.read(to_pod[0], 1)
        serve(*POD)
        while True:
            os.write(from_pod[1], b"r")
            os.read(to_pod[0], 1)
            os.write(from_pod[1], b"%d%d" % (reaches(*POD), reaches(*OTHER)))

    def look():
        os.write(to_pod[1], b"g")
        inside = os.read(from_pod[0], 2).decode()
        os.read(from_pod[0], 1)
        return inside + "%d%d" % (reaches(*POD), reaches(*OTHER))

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
            print("after", look())
        finally:
            os.kill(pod, 9)
            os.waitpid(pod, 0)
            net.close()

    asyncio.run(main())
    """
)


@pytest.mark.skipif(network.missing() is not None, reason=str(network.missing()))
def test_a_cut_off_pod_reaches_itself_and_nobody_else() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", NETWORK_PROBE], capture_output=True, text=True, check=False, timeout=60
    )
    # inside to inside, inside to outside, outside to inside, outside to outside
    assert done.stdout.split() == ["before", "1111", "cut", "1001", "after", "1111"], done.stderr
