"""Peers on this machine, each at a loopback address of its own, and the platform that tells them of each other."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from runtime_env.bundle import hex_of
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.members import Member
from runtime_env.peers.metainfo import BlobMetainfo, describe
from runtime_env.peers.node import PeerNode
from runtime_env.peers.options import PeerOptions
from runtime_env.peers.sharing import Patience
from runtime_env.store import Store

TOKEN = b"the platform's token"
QUICK = Patience(settle=0.4, lonely=0.6, stall=2.0)
_addresses = itertools.count(1)


def new_host() -> str:
    """An address that no other test of this process uses, nor, most likely, any other process."""
    number = next(_addresses)
    return f"127.{os.getpid() % 200 + 20}.{number // 250}.{number % 250 + 2}"


def make_blob(folder: Path, size_bytes: int) -> BlobMetainfo:
    """Random bytes, in a folder store's place and as a cache's file."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "made"
    made.write_bytes(os.urandom(size_bytes))
    metainfo = describe(made)
    made.rename(folder / hex_of(metainfo.digest))
    return metainfo


class PeerNetwork:
    """Owns nodes and a thread that tells each of all that are alive, ten times a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, PeerNode] = {}
        self.others: list[Member] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell)
        self._pool = ThreadPoolExecutor(32)

    def __enter__(self) -> PeerNetwork:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for node in self.nodes.values():
            node.close()
        self._pool.shutdown()

    def add(
        self,
        name: str,
        *,
        store: Store | None = None,
        origin: bool = False,
        cache: Path | None = None,
        patience: Patience = QUICK,
        give_up_seconds: float = 60.0,
    ) -> PeerNode:
        options = PeerOptions(name=name, host=new_host(), origin=origin, patience=patience, give_up_seconds=give_up_seconds)
        blobs = BlobCache(path=cache or self.folder / name, quota_bytes=2**40, free_bytes=0)
        node = PeerNode(options=options, cache=blobs, store=store)
        node.start()
        self.nodes[name] = node
        return node

    def remove(self, name: str) -> None:
        with self._lock:
            node = self.nodes.pop(name)
        node.close()

    def fetch(self, nodes: Iterable[PeerNode], metainfo: BlobMetainfo, token: bytes = TOKEN) -> list[Future[Path]]:
        return [self._pool.submit(node.fetch, metainfo, token) for node in nodes]

    def _tell(self) -> None:
        while not self._stop.wait(0.1):
            with self._lock:
                nodes = list(self.nodes.values())
                members = [*(node.member() for node in nodes), *self.others]
                for node in nodes:
                    node.set_members(members)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until, "it did not come to pass in time"
        pause.wait(0.02)
