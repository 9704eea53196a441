"""One run of `bench.distribution`: the origin, the processes, the word to begin, what dies, and what is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final

from bench.distribution_contents import Contents
from bench.range_server import RangeServer
from rayline.errors import RaylineError
from workers.peering import MISSED_BEATS

_DEATH_COPIES: Final = 0.5
_ORIGIN_AWAY_SECONDS: Final = 5.0
# By each of these, pip or uv would look there; what they look at instead is taken away.
_INDEX_VARIABLES: Final = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
_OTHER_PLACES: Final = ("PIP_FIND_LINKS", "PIP_NO_INDEX", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_OFFLINE")


class Way(StrEnum):
    """How the nodes get the blob."""

    PEERS = "peers"
    HTTP = "http"


class Dies(StrEnum):
    """What is killed when half a copy has left the origin. ORIGIN comes back, on the same port."""

    ORIGIN = "origin"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Row:
    """`copies` is what the origin sent, in contents; memory is the greatest resident size of any node, processor time the mean of
    theirs without their start; `others_share` is what other processes (those that nodes start included) used of the machine's
    processors meanwhile; `phases` are the longest seconds of any node in each phase of a start."""

    way: Way
    nodes: int
    seconds: float
    copies: float
    memory_bytes: int
    cpu_seconds_per_gib: float
    others_share: float
    index_requests: int
    dies: Dies | None
    phases: dict[str, float]


def run(folder: Path, contents: Contents, *, way: Way, nodes: int, rate: int | None, dies: Dies | None) -> Row:
    """Give `contents` to `nodes` processes by `way`; raises RaylineError when one of them fails that was not to die."""
    size_bytes = contents.size_bytes
    (folder / "index").mkdir()
    with RangeServer(folder=folder / "index") as index, _Origin(contents.store, rate) as origin:
        inherited = {name: value for name, value in os.environ.items() if name not in _OTHER_PLACES}
        environment = {**inherited, **dict.fromkeys(_INDEX_VARIABLES, index.url)}
        _prove_counting(index, environment)
        command = [sys.executable, "-m", "bench.distribution", "--node", way, "--store", origin.url]
        command += [*contents.arguments, "--rate", str(rate or 0)]
        processes = [
            subprocess.Popen(
                [*command, "--name", str(number), "--dir", str(folder / f"node-{number}")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for number in range(nodes)
        ]
        try:
            # All of them are up before the clock starts.
            platform = _Platform(processes, [json.loads(_line(process.stdout)) for process in processes])
            busy, own, started = _busy_seconds(), time.process_time(), time.monotonic()
            platform.tell()
            ended = [platform.follow(number) for number in range(nodes)]
            if dies is not None:
                origin.await_sent(_DEATH_COPIES * size_bytes)
                origin.break_down() if dies is Dies.ORIGIN else platform.kill(0)
            for thread in ended:
                thread.join()
            seconds = time.monotonic() - started
            outcomes = [one for one in platform.outcomes if one is not None]
            if len(outcomes) < nodes - (dies is Dies.PEER):
                raise RaylineError("a node failed: see its message above")
            ours = time.process_time() - own + sum(one["cpu_seconds"] for one in outcomes)
            others = (_busy_seconds() - busy - ours) / seconds / (os.cpu_count() or 1)
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()
    return Row(
        way,
        nodes,
        round(seconds, 1),
        round(origin.sent_bytes / size_bytes, 3),
        int(max(one["memory_bytes"] for one in outcomes)),
        round(sum(one["cpu_seconds"] for one in outcomes) / len(outcomes) / (size_bytes / 2**30), 1),
        round(max(0.0, others), 2),
        len(index.requests),
        dies,
        {phase: round(max(one["phases"].get(phase, 0.0) for one in outcomes), 1) for phase in outcomes[0]["phases"]},
    )


def _prove_counting(index: RangeServer, environment: dict[str, str]) -> None:
    """A node that asked for a package would be counted; raises RaylineError where it would not."""
    asking = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--retries", "0", "numpy"]
    subprocess.run(asking, check=False, capture_output=True, env=environment)
    if not index.requests:
        raise RaylineError("pip asked elsewhere than the index of this run: what nodes ask for would not be counted")
    index.requests.clear()


class _Origin:
    """Owns the web server of the store, which may break down and come back at its address."""

    def __init__(self, folder: Path, rate: int | None) -> None:
        self._folder = folder
        self._rate = rate
        self._server = RangeServer(folder=folder, rate=rate)
        self._sent_before = 0
        self._paused = threading.Event()
        self.url = self._server.url

    def __enter__(self) -> _Origin:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    @property
    def sent_bytes(self) -> int:
        return self._sent_before + self._server.sent_bytes

    def await_sent(self, count: float) -> None:
        while self.sent_bytes < count:
            self._paused.wait(0.02)

    def break_down(self) -> None:
        """In the middle of what it sends; blocks until it is back."""
        port = self._server.port
        self._server.close()
        self._paused.wait(_ORIGIN_AWAY_SECONDS)
        self._sent_before += self._server.sent_bytes
        self._server = RangeServer(folder=self._folder, port=port, rate=self._rate)
        self._server.__enter__()


class _Platform:
    """Passes what each node says of itself on to all, as heartbeats do."""

    def __init__(self, processes: list[subprocess.Popen[str]], notices: list[dict[str, str]]) -> None:
        self.outcomes: list[dict[str, Any] | None] = [None] * len(processes)
        self._processes = processes
        self._notices = dict(enumerate(notices))
        self._dead: set[int] = set()
        self._lock = threading.Lock()

    def tell(self) -> None:
        line = json.dumps([notice["report"] for notice in self._notices.values()]) + "\n"
        for number, process in enumerate(self._processes):
            if number in self._dead:
                continue
            stdin = process.stdin
            assert stdin is not None
            stdin.write(line)
            stdin.flush()

    def follow(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._follow, args=(number,))
        thread.start()
        return thread

    def kill(self, number: int) -> None:
        """As by `kill -9`; the others hear of it when a second has been missed as often as makes a node silent."""
        with self._lock:
            self._dead.add(number)
            self._processes[number].send_signal(signal.SIGKILL)
            self._processes[number].wait()
        threading.Timer(MISSED_BEATS, self._bury, args=(number,)).start()

    def _bury(self, number: int) -> None:
        with self._lock:
            del self._notices[number]
            self.tell()

    def _follow(self, number: int) -> None:
        while line := _line(self._processes[number].stdout):
            notice = json.loads(line)
            if "memory_bytes" in notice:
                self.outcomes[number] = notice
                return
            with self._lock:
                self._notices[number] = notice
                self.tell()


def _busy_seconds() -> float:
    """Processor time of the whole machine since its start, idle and stolen time left out."""
    user, nice, system, _idle, _waiting, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()
