"""`python -m bench.distribution`: one blob to 1, 8 and 20 nodes, from peers and over plain HTTP, in the same run.

The origin is a web server; it and each node move at most `--rate` in each direction. Each node is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from bench.range_server import RangeServer
from rayline.errors import RaylineError
from runtime_env.bundle import Layer, LayerKind
from runtime_env.fetch import fetch_blobs
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.members import Member
from runtime_env.peers.metainfo import describe
from runtime_env.peers.node import PeerNode
from runtime_env.peers.options import PeerOptions
from runtime_env.store import FolderStore, open_store

TOKEN: Final = b"bench"
COPIES_BAR: Final = 1.2
SPEED_BAR: Final = 4.0
MEMORY_BAR: Final = 200 * 2**20
BAR_NODES: Final = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One run: `copies` is what the origin sent, in blobs; memory is the greatest resident size of any node."""

    way: str
    nodes: int
    seconds: float
    copies: float
    memory_bytes: int
    cpu_seconds: float


def run(folder: Path, *, way: str, nodes: int, size_bytes: int, rate: int | None) -> Row:
    """Give a new blob to `nodes` processes by `way` (peers or http); raises RaylineError when one of them fails."""
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(size_bytes // 2**20):
            file.write(os.urandom(2**20))
    metainfo = describe(source)
    store = FolderStore(path=folder / "store")
    store.put_metainfo(metainfo)
    store.put_blob(metainfo.digest, source)
    source.unlink()
    with RangeServer(folder=folder / "store", rate=rate) as server:
        command = [sys.executable, "-m", "bench.distribution", "--node", way, "--digest", metainfo.digest, "--store", server.url]
        command += ["--size", str(metainfo.size_bytes), "--rate", str(rate or 0)]
        started = time.monotonic()
        processes = [
            subprocess.Popen(
                [*command, "--name", str(number), "--dir", str(folder / f"node-{number}")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(nodes)
        ]
        try:
            # All of them are up before the clock starts.
            notices = [json.loads(_line(process.stdout)) for process in processes]
            platform = _Platform(processes, notices)
            started, sent = time.monotonic(), server.sent_bytes
            platform.tell()
            ended = [platform.follow(number) for number in range(nodes)]
            for thread in ended:
                thread.join()
            seconds = time.monotonic() - started
            copies = (server.sent_bytes - sent) / metainfo.size_bytes
            if any(outcome is None for outcome in platform.outcomes):
                raise RaylineError("a node failed: see its message above")
            outcomes = [outcome for outcome in platform.outcomes if outcome is not None]
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()
    store.delete_blob(metainfo.digest)
    return Row(
        way,
        nodes,
        round(seconds, 1),
        round(copies, 3),
        int(max(one["memory_bytes"] for one in outcomes)),
        round(sum(one["cpu_seconds"] for one in outcomes) / nodes, 2),
    )


class _Platform:
    """Passes what each node says of itself on to all, as heartbeats do."""

    def __init__(self, processes: list[subprocess.Popen[str]], notices: list[dict[str, str]]) -> None:
        self.outcomes: list[dict[str, float] | None] = [None] * len(processes)
        self._processes = processes
        self._notices = notices
        self._lock = threading.Lock()

    def tell(self) -> None:
        line = json.dumps([notice["member"] for notice in self._notices]) + "\n"
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()

    def follow(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._follow, args=(number,))
        thread.start()
        return thread

    def _follow(self, number: int) -> None:
        while line := _line(self._processes[number].stdout):
            notice = json.loads(line)
            if "memory_bytes" in notice:
                self.outcomes[number] = notice
                return
            with self._lock:
                self._notices[number] = notice
                self.tell()


def node(options: argparse.Namespace) -> None:
    """One node: tells of itself on stdout, hears of the others on stdin, ends when that closes."""
    store = open_store(options.store)
    rate = options.rate or None
    folder: Path = options.dir
    cache = BlobCache(path=folder, quota_bytes=2**50, free_bytes=0)
    peers = PeerNode(options=PeerOptions(name=options.name, host=f"127.77.0.{int(options.name) + 2}"), cache=cache, store=store)
    with peers:
        peers.set_limits(download=rate, upload=rate)

        def hear() -> None:
            for line in sys.stdin:
                peers.set_members(Member.from_bytes(bytes.fromhex(one)) for one in json.loads(line))

        def tell() -> None:
            sys.stdout.write(json.dumps({"member": peers.member().to_bytes().hex()}) + "\n")
            sys.stdout.flush()

        tell()
        peers.set_members(Member.from_bytes(bytes.fromhex(one)) for one in json.loads(sys.stdin.readline()))
        hearing = threading.Thread(target=hear)
        hearing.start()
        if options.node == "http":
            fetch_blobs(store, [Layer("blob", LayerKind.MODEL, options.digest, options.size, options.size, 1)], folder / "http")
        else:
            told: set[frozenset[str]] = {frozenset()}

            def on_progress(_: object) -> None:
                wants = peers.member().wants
                if wants not in told:
                    told.add(wants)
                    tell()

            peers.fetch(store.get_metainfo(options.digest), TOKEN, progress=on_progress)
        times = os.times()
        sys.stdout.write(json.dumps({"memory_bytes": _peak_memory(), "cpu_seconds": times.user + times.system}) + "\n")
        sys.stdout.flush()
        hearing.join()


def bars(rows: list[Row]) -> dict[str, bool]:
    """What the curve is judged by; a bar whose runs are missing is left out."""
    by = {(row.way, row.nodes): row for row in rows}
    judged = {f"origin sends ≤ {COPIES_BAR} copies": all(row.copies <= COPIES_BAR for row in rows if row.way == "peers")}
    judged["a node stays under 200 MiB"] = all(row.memory_bytes < MEMORY_BAR for row in rows if row.way == "peers")
    if ("http", BAR_NODES) in by and ("peers", BAR_NODES) in by:
        gain = by["http", BAR_NODES].seconds / by["peers", BAR_NODES].seconds
        judged[f"{BAR_NODES} nodes finish ≥ {SPEED_BAR:g} × sooner than by HTTP (here {gain:.1f} ×)"] = gain >= SPEED_BAR
    return judged


def main() -> int:
    """Print the curve and the bars; the exit code is 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.distribution", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=256, help="of the blob (default 256)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 20])
    parser.add_argument("--rate-mb", type=float, default=50.0, help="MB/s of the origin and of each node; 0: no limit")
    parser.add_argument("--ways", nargs="+", default=["peers", "http"], choices=["peers", "http"])
    parser.add_argument("--dir", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    for hidden in ("--node", "--digest", "--store", "--name"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        node(options)
        return 0
    rows = []
    for nodes in options.nodes:
        for way in options.ways:
            with tempfile.TemporaryDirectory(prefix="rayline-bench-peers-", dir=options.dir) as folder:
                rate = int(options.rate_mb * 1e6) or None
                rows.append(run(Path(folder), way=way, nodes=nodes, size_bytes=options.size_mib * 2**20, rate=rate))
            sys.stdout.write(_told(rows[-1]) + "\n")
            sys.stdout.flush()
    judged = bars(rows)
    load = os.getloadavg()[0]
    lines = [f"load of the machine at the end: {load:.1f} on {os.cpu_count()} processors"]
    lines += [f"{'met   ' if met else 'MISSED'} {bar}" for bar, met in judged.items()]
    sys.stdout.write("\n".join([*lines, ""]))
    if options.json is not None:
        outcome = {"rows": [asdict(row) for row in rows], "bars": judged, "size_mib": options.size_mib, "load": load}
        options.json.write_text(json.dumps(outcome, indent=2), encoding="utf-8")
    return 0 if all(judged.values()) else 1


def _told(row: Row) -> str:
    return (
        f"{row.way:6} {row.nodes:3} nodes {row.seconds:8.1f} s  origin sent {row.copies:6.3f} copies  "
        f"{row.memory_bytes / 2**20:5.0f} MiB and {row.cpu_seconds:.1f} s of processor a node"
    )


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def _peak_memory() -> int:
    """The greatest resident size of this process so far, bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    sys.exit(main())
