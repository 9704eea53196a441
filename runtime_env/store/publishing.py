"""Publishing a bundle or a model: first its blobs, then a counter and a signature, then its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rayline.errors import StoreError
from runtime_env.bundle import Bundle, Layer
from runtime_env.model_release import ModelRelease, SignedModel, sign_model
from runtime_env.peers.metainfo import describe
from runtime_env.signing import SignedBundle, SigningKey
from runtime_env.store.protocol import WritableStore
from runtime_env.transfer import OnTransfer, counted, unheard


@dataclass(frozen=True, slots=True)
class Published:
    """What lies in the store now, and how many bytes had to go there; `new` is False where it was the newest already."""

    signed: SignedBundle
    moved_bytes: int
    new: bool


def publish(
    store: WritableStore,
    bundle: Bundle,
    blob_paths: Mapping[str, Path],
    *,
    key: SigningKey | None,
    progress: OnTransfer = unheard,
) -> Published:
    """Make `bundle` the app's newest; `blob_paths` are local files for those blobs that the store may lack.

    An app's newest bundle with equal contents, signed by the same key, is left as it is.

    Raises:
        StoreError: the store cannot be written, or lacks a blob that is not here either.
    """
    moved = _put_blobs(store, bundle.layers, blob_paths, progress)
    entries = [entry for entry in store.entries() if entry.app == bundle.app]
    signers = {key.name} if key is not None else set()
    if entries and entries[-1].digest == bundle.digest:
        newest = store.get_manifest(f"{bundle.app}@{entries[-1].counter}")
        if set(newest.signatures) == signers:
            return Published(newest, moved, new=False)
    counter = entries[-1].counter + 1 if entries else 1
    signed = key.sign(bundle, counter) if key is not None else SignedBundle(bundle, counter, {})
    return Published(signed, moved + store.put_manifest(signed), new=True)


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """As `Published`, of a model."""

    signed: SignedModel
    moved_bytes: int
    new: bool


def publish_model(
    store: WritableStore, release: ModelRelease, blob: Path, *, key: SigningKey | None, progress: OnTransfer = unheard
) -> PublishedModel:
    """Add a version of a model; `blob` is its layer's local file. Which version is in force is another matter.

    Contents that equal the newest publication's, signed by the same key, are left as they are. Raises StoreError.
    """
    moved = _put_blobs(store, [release.layer], {release.layer.digest: blob}, progress)
    name = release.model.name
    entries = [entry for entry in store.model_entries() if (entry.app, entry.name) == (release.app, name)]
    if entries and entries[-1].digest == release.digest:
        newest = store.get_model(entries[-1])
        if set(newest.signatures) == ({key.name} if key is not None else set()):
            return PublishedModel(newest, moved, new=False)
    signed = sign_model(release, entries[-1].counter + 1 if entries else 1, key)
    return PublishedModel(signed, moved + store.put_model(signed), new=True)


def _put_blobs(store: WritableStore, layers: Iterable[Layer], blob_paths: Mapping[str, Path], progress: OnTransfer) -> int:
    moved = 0
    for layer in layers:
        if store.has_blob(layer.digest):
            continue
        if layer.digest not in blob_paths:
            raise StoreError(f"layer {layer.name} ({layer.digest}) is neither in {store.url} nor here: build the bundle again")
        blob = blob_paths[layer.digest]
        # First what peers must know of it: a blob without would be read from the store by every node.
        moved += store.put_metainfo(describe(blob, counted(f"hashing {layer.name}", layer.size_bytes, progress)))
        moved += store.put_blob(layer.digest, blob, counted(f"storing {layer.name}", layer.size_bytes, progress))
    return moved
