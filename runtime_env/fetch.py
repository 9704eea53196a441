"""From a store to local files: each blob checked as it comes, continued where an earlier attempt stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rayline.errors import BlobCorrupt, BlobTruncated, StoreError
from runtime_env.bundle import Layer, hex_of
from runtime_env.durable import disk_full_told
from runtime_env.store.protocol import Store

_CHUNK: Final = 2**20


def fetch_blobs(store: Store, layers: Iterable[Layer], folder: Path) -> dict[str, Path]:
    """The blobs of `layers` in `folder`, by digest; those that are there are not read again.

    Raises:
        BlobTruncated, BlobCorrupt: the store gave something else than the manifest says; nothing of it stays.
        StoreError, DiskFull.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    for layer in layers:
        path = folder / hex_of(layer.digest)
        if not path.exists():
            with disk_full_told(folder):
                _fetch(store, layer, path)
        found[layer.digest] = path
    return found


def _fetch(store: Store, layer: Layer, path: Path) -> None:
    """Into a `.part` file, which a later attempt continues; it gets its name when every byte is checked."""
    part = path.with_suffix(".part")
    digest = hashlib.sha256()
    with part.open("a+b") as file:
        file.seek(0)
        offset = 0
        while data := file.read(_CHUNK):
            digest.update(data)
            offset += len(data)
        if offset < layer.size_bytes:
            with store.open_blob(layer.digest, offset) as source:
                try:
                    while data := source.read(min(_CHUNK, layer.size_bytes + 1 - offset)):
                        offset += len(data)
                        digest.update(data)
                        file.write(data)
                except OSError as error:
                    raise StoreError(f"{store.url}: the transfer of {layer.name} broke off: {error}; try again") from error
    if offset < layer.size_bytes:
        raise BlobTruncated(f"{layer.name}: {store.url} gave {offset} of {layer.size_bytes} bytes")
    if offset > layer.size_bytes or digest.hexdigest() != hex_of(layer.digest):
        part.unlink()
        raise BlobCorrupt(f"{layer.name}: {store.url} holds other bytes than the manifest says; look into who wrote to it")
    part.rename(path)
