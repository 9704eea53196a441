"""Where a node's blobs come from: the store alone here; `runtime_env.peers` brings a source with the neighbours' help."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from runtime_env.bundle import Layer
from runtime_env.fetch import fetch_blobs
from runtime_env.peers.cache import BlobCache
from runtime_env.store import Store

# Is told how many bytes came, each time that some did.
OnBytes = Callable[[int], None]


class BlobSource(Protocol):
    """Brings blobs into a node's cache. Blocks; may be called from one thread at a time."""

    def fetch(self, layers: Iterable[Layer], on_bytes: OnBytes) -> dict[str, Path]:
        """Local files of `layers`, by digest, every byte checked; what is here already is not read again.

        Raises:
            EnvError: as `runtime_env.fetch.fetch_blobs`, DiskFull where the cache has no room.
        """
        ...


class StoreSource:
    """Reads from a store, blob by blob, from where an earlier attempt stopped."""

    def __init__(self, *, store: Store, cache: BlobCache) -> None:
        self._store = store
        self._cache = cache

    def fetch(self, layers: Iterable[Layer], on_bytes: OnBytes) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for layer in layers:
            path = self._cache.find(layer.digest)
            if path is None:
                with self._cache.room_for(layer.digest, layer.size_bytes):
                    path = fetch_blobs(self._store, [layer], self._cache.path)[layer.digest]
            on_bytes(layer.size_bytes)
            found[layer.digest] = path
        return found
