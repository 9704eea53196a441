"""One node of `bench.distribution`: tells of itself on stdout, hears of the others on stdin, ends when that closes."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

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

TOKEN: Final = b"bench"
TELL_SECONDS: Final = 0.2


def run_node(*, way: Way, name: str, layers: list[Layer], store_url: str, rate: int | None, folder: Path) -> None:
    """Fetch when the word is given, and stay until stdin closes."""
    store = open_store(store_url)
    cache = BlobCache(path=folder, quota_bytes=2**50, free_bytes=0)
    options = PeerOptions(name=f"bench/{name}", host=f"127.77.0.{int(name) + 2}")
    with PeerNode(options=options, cache=cache, store=store) as peers:
        peers.set_limits(download=rate, upload=rate)
        peering = Peering(peer=peers)

        def hear(line: str) -> None:
            for report in json.loads(line):
                peering.hear(bytes.fromhex(report), time.monotonic())
            peering.tell(time.monotonic())

        def hear_all() -> None:
            for line in sys.stdin:
                hear(line)

        def tell() -> None:
            """Where what it holds or fetches is other than told."""
            member = peers.member()
            if told and told[-1] == (member.holds, member.wants):
                return
            told.append((member.holds, member.wants))
            report = NodeReport("bench", name, 1, 1, NodeState.READY, interval_ms=600_000, peer=peering.presence())
            _say({"report": encode_reports([report]).hex()})

        told: list[tuple[frozenset[str], frozenset[str]]] = []
        tell()
        hear(sys.stdin.readline())
        before = os.times()
        hearing = threading.Thread(target=hear_all)
        hearing.start()
        if way is Way.HTTP:
            fetch_blobs(store, layers, folder / "http")
        else:
            with Repeated(tell, TELL_SECONDS):
                PeerSource(node=peers, store=store, cache=cache, token=TOKEN).fetch(layers, lambda _: None)
        after = os.times()
        _say({"memory_bytes": _peak_memory(), "cpu_seconds": after.user + after.system - before.user - before.system})
        hearing.join()


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


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _peak_memory() -> int:
    """The greatest resident size of this process so far, bytes. Blobs are read and written by calls, none of it is mapped."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
