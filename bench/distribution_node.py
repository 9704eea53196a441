"""One node of `bench.distribution`: tells of itself on stdout, hears of the others on stdin, ends when that closes."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from bench.distribution_run import Way
from rayline.reports import NodeReport, NodeState, encode_reports
from runtime_env.bundle import Layer
from runtime_env.fetch import fetch_blobs
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.node import PeerNode
from runtime_env.peers.options import PeerOptions
from runtime_env.peers.source import PeerSource
from runtime_env.store import open_store
from workers.peering import Peering

TOKEN: Final = "the token of the bench"
TELL_SECONDS: Final = 0.2


class Task(Protocol):
    """What a node does when the word is given. `peering` is None where it hears of nobody."""

    @property
    def peering(self) -> Peering | None: ...

    def run(self) -> dict[str, float]:
        """Blocks until everything is here; returns how long each phase of it took, seconds."""
        ...


class Fetch:
    """Fetches layers into a cache, from peers or over plain HTTP."""

    def __init__(self, *, way: Way, name: str, layers: list[Layer], store_url: str, rate: int | None, folder: Path) -> None:
        self._way = way
        self._layers = layers
        self._folder = folder
        self._store = open_store(store_url)
        self._cache = BlobCache(path=folder, quota_bytes=2**50, free_bytes=0)
        options = PeerOptions(name=f"bench/{name}", host=host_of(name))
        self._peers = PeerNode(options=options, cache=self._cache, store=self._store)
        self._peers.start()
        self._peers.set_limits(download=rate, upload=rate)
        self.peering = Peering(peer=self._peers)

    def run(self) -> dict[str, float]:
        if self._way is Way.HTTP:
            fetch_blobs(self._store, self._layers, self._folder / "http")
        else:
            source = PeerSource(node=self._peers, store=self._store, cache=self._cache, token=TOKEN.encode())
            source.fetch(self._layers, lambda _: None)
        return {}


def run_node(name: str, task: Task) -> None:
    """Do the task when the word is given, and stay until stdin closes."""
    peering = task.peering
    told: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def hear(line: str) -> None:
        if peering is not None:
            for report in json.loads(line):
                peering.hear(bytes.fromhex(report), time.monotonic())
            peering.tell(time.monotonic())

    def hear_all() -> None:
        for line in sys.stdin:
            hear(line)

    def tell() -> None:
        """Where what it holds or fetches is other than told."""
        presence = None if peering is None else peering.presence()
        has = ((), ()) if presence is None else (presence.holds, presence.wants)
        if told and told[-1] == has:
            return
        told.append(has)
        report = NodeReport("bench", name, 1, 1, NodeState.READY, interval_ms=600_000, peer=presence)
        _say({"report": encode_reports([report]).hex()})

    tell()
    hear(sys.stdin.readline())
    before = os.times()
    hearing = threading.Thread(target=hear_all)
    hearing.start()
    with Repeated(tell, TELL_SECONDS):
        phases = task.run()
    after = os.times()
    cpu_seconds = after.user + after.system - before.user - before.system
    _say({"memory_bytes": _peak_memory(), "cpu_seconds": cpu_seconds, "phases": phases})
    hearing.join()
    if peering is not None:
        peering.close()


class Repeated:
    """Calls something again and again, in a thread of its own, between enter and exit; at last once more."""

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        self._call = call
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Repeated:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._call()
        self._call()


def host_of(name: str) -> str:
    """A loopback address of this node's own."""
    return f"127.77.0.{int(name) + 2}"


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _peak_memory() -> int:
    """The greatest resident size of this process so far, bytes. Blobs are read and written by calls, none of it is mapped."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
