"""A node's blobs from its neighbours and the store: `runtime_env.node.source.BlobSource` with the help of peers."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rayline.errors import BlobCorrupt, NotInStore
from runtime_env.bundle import Layer, hex_of
from runtime_env.durable import write_durably
from runtime_env.fetch import fetch_blobs
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.peers.node import PeerNode
from runtime_env.peers.swarm import FetchProgress
from runtime_env.store import Store

# Below, meeting peers takes longer than the bytes; a bundle's small layers together are a small part of it.
MIN_PEER_BYTES: Final = 64 * 2**10
# Much of a fetch is waiting for others; each blob under way costs a connection to each of them.
_AT_ONCE: Final = 16
_DESCRIBED: Final = "described"

_log = logging.getLogger(__name__)


class PeerSource:
    """Brings blobs into the cache that `node` fetches into and gives from. Owns the descriptions that lie beside them, so that
    what a node has is given on after a restart, too. Does not own the node, the store or the cache.

    Small blobs, and those that the store does not describe, come from the store alone.
    """

    def __init__(self, *, node: PeerNode, store: Store, cache: BlobCache, token: bytes) -> None:
        """`token` is what all that share blobs hold, and nobody else."""
        self._node = node
        self._store = store
        self._cache = cache
        self._token = token
        self._described = cache.path / _DESCRIBED
        self._described.mkdir(exist_ok=True)

    def offer(self) -> int:
        """Give what is in the cache since earlier; returns how many blobs that are. What is not there any more is forgotten."""
        offered = 0
        for path in self._described.iterdir():
            try:
                metainfo = BlobMetainfo.from_bytes(path.read_bytes())
            except BlobCorrupt as error:
                _log.warning("%s is left out: %s", path, error)
                path.unlink(missing_ok=True)
                continue
            if self._cache.blob(metainfo.digest).exists():
                self._node.give(metainfo, self._token)
                offered += 1
            else:
                path.unlink(missing_ok=True)
        return offered

    def fetch(self, layers: Iterable[Layer], on_bytes: Callable[[int], None]) -> dict[str, Path]:
        """Local files of `layers`, by digest, every byte checked; they are given to others from then on. Blocks.

        `on_bytes` is told how many bytes came, from one thread at a time.

        Raises:
            DiskFull, BlobCorrupt, PeerError: as `PeerNode.fetch`.
            BlobTruncated, StoreError: as `fetch_blobs`.
        """
        told = _Told(on_bytes)

        def fetch(layer: Layer) -> tuple[str, Path]:
            path = self._fetch(layer, told)
            told.reach(layer.digest, layer.size_bytes)
            return layer.digest, path

        # The same order on all nodes, so that those who begin together fetch the same.
        ordered = sorted(layers, key=lambda layer: (-layer.size_bytes, layer.digest))
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="rayline-layers") as threads:
            return dict(threads.map(fetch, ordered))

    def _fetch(self, layer: Layer, told: _Told) -> Path:
        metainfo = self._description(layer) if layer.size_bytes >= MIN_PEER_BYTES else None
        if metainfo is not None:
            return self._node.fetch(metainfo, self._token, progress=told)
        found = self._cache.find(layer.digest)
        if found is not None:
            return found
        with self._cache.room_for(layer.digest, layer.size_bytes):
            return fetch_blobs(self._store, [layer], self._cache.path)[layer.digest]

    def _description(self, layer: Layer) -> BlobMetainfo | None:
        """None where an older Rayline published the blob, which described nothing."""
        kept = self._described / hex_of(layer.digest)
        if kept.exists():
            try:
                return BlobMetainfo.from_bytes(kept.read_bytes())
            except BlobCorrupt:
                # Torn, by a crash: the store has it.
                kept.unlink()
        try:
            metainfo = self._store.get_metainfo(layer.digest)
        except NotInStore:
            return None
        write_durably(kept, metainfo.to_bytes())
        return metainfo


class _Told:
    """Turns how far each blob is into how many bytes came."""

    def __init__(self, on_bytes: Callable[[int], None]) -> None:
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._reached: defaultdict[str, int] = defaultdict(int)

    def __call__(self, progress: FetchProgress) -> None:
        self.reach(progress.digest, progress.done)

    def reach(self, digest: str, done: int) -> None:
        with self._lock:
            count = done - self._reached[digest]
            if count > 0:
                self._reached[digest] = done
                self._on_bytes(count)
