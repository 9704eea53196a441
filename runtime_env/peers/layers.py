"""A bundle's blobs from peers and the store: what `runtime_env.fetch` does, with the neighbours' help."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rayline.errors import NotInStore
from runtime_env.bundle import Layer
from runtime_env.fetch import fetch_blobs
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.node import PeerNode
from runtime_env.peers.swarm import Progress
from runtime_env.store import Store

# Below, meeting peers takes longer than the bytes; a bundle's small layers together are a small part of it.
MIN_PEER_BYTES: Final = 64 * 2**10
# Most of a fetch is waiting for others: all layers of an environment at once.
_AT_ONCE: Final = 64


def fetch_from_peers(
    node: PeerNode, store: Store, cache: BlobCache, layers: Iterable[Layer], token: bytes, *, progress: Progress | None = None
) -> dict[str, Path]:
    """The blobs of `layers` in `cache`, by digest, as `fetch_blobs` returns them; they are given to others from then on.

    `node` fetches into `cache`. Small blobs, and those of a store that describes none, come from the store alone.

    Raises:
        DiskFull, BlobCorrupt, PeerError: as `PeerNode.fetch`.
        BlobTruncated, StoreError: as `fetch_blobs`.
    """

    def fetch(layer: Layer) -> tuple[str, Path]:
        if layer.size_bytes >= MIN_PEER_BYTES:
            try:
                return layer.digest, node.fetch(store.get_metainfo(layer.digest), token, progress=progress)
            except NotInStore:
                # Published by an older Rayline, which described nothing.
                pass
        if cache.find(layer.digest) is None:
            with cache.room_for(layer.digest, layer.size_bytes):
                return layer.digest, fetch_blobs(store, [layer], cache.path)[layer.digest]
        return layer.digest, cache.blob(layer.digest)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="rayline-layers") as threads:
        return dict(threads.map(fetch, layers))
