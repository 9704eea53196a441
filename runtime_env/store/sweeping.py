"""Making room in a store: old publications go, then blobs that none of the others name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from runtime_env.store.protocol import ManifestEntry, ModelEntry, WritableStore


@dataclass(frozen=True, slots=True)
class Swept:
    """What went (or would go), and how many bytes of blobs that frees."""

    manifests: tuple[ManifestEntry, ...]
    blobs: tuple[str, ...]
    freed_bytes: int


def sweep(store: WritableStore, *, keep: int, in_use: Collection[str] = (), dry_run: bool = False) -> Swept:
    """Keep the newest `keep` publications of each app, those of bundles `in_use` (digests), and all of models (`sweep_models`).

    Must not run while something is published: its blobs come first.
    """
    by_app: dict[str, list[ManifestEntry]] = defaultdict(list)
    for entry in store.entries():
        by_app[entry.app].append(entry)
    old = [entry for entries in by_app.values() for entry in entries[:-keep] if entry.digest not in in_use]
    gone = set(old)
    kept = [entry for entries in by_app.values() for entry in entries if entry not in gone]
    named = {layer.digest for entry in kept for layer in store.get_manifest(f"{entry.app}@{entry.counter}").bundle.layers}
    named |= {store.get_model(entry).release.layer.digest for entry in store.model_entries()}
    orphans = {digest: size for digest, size in store.blobs() if digest not in named}
    if not dry_run:
        # Names before blobs: a reader never finds a bundle whose blobs are gone.
        for entry in old:
            store.delete_manifest(entry)
        for digest in orphans:
            store.delete_blob(digest)
    return Swept(tuple(old), tuple(orphans), sum(orphans.values()))


def sweep_models(
    store: WritableStore, app: str, *, keep: int, in_use: Collection[ModelEntry], dry_run: bool = False
) -> list[ModelEntry]:
    """Remove publications of an app's models: not the newest `keep` of each, nor what is `in_use`; their blobs are `sweep`'s."""
    by_name: dict[str, list[ModelEntry]] = defaultdict(list)
    for entry in store.model_entries():
        if entry.app == app:
            by_name[entry.name].append(entry)
    old = [entry for entries in by_name.values() for entry in entries[:-keep] if entry not in in_use]
    if not dry_run:
        for entry in old:
            store.delete_model(entry)
    return old
