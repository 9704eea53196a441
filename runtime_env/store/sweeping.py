"""Making room in a store: old publications go, then blobs that none of the others name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from runtime_env.store.protocol import ManifestEntry, WritableStore


@dataclass(frozen=True, slots=True)
class Swept:
    """What went (or would go), and how many bytes of blobs that frees."""

    manifests: tuple[ManifestEntry, ...]
    blobs: tuple[str, ...]
    freed_bytes: int


def sweep(store: WritableStore, *, keep: int, dry_run: bool = False) -> Swept:
    """Keep the newest `keep` publications of each app. Must not run while something is published: its blobs come first."""
    by_app: dict[str, list[ManifestEntry]] = defaultdict(list)
    for entry in store.entries():
        by_app[entry.app].append(entry)
    old = [entry for entries in by_app.values() for entry in entries[:-keep]]
    kept = [entry for entries in by_app.values() for entry in entries[-keep:]]
    named = {layer.digest for entry in kept for layer in store.get_manifest(f"{entry.app}@{entry.counter}").bundle.layers}
    orphans = {digest: size for digest, size in store.blobs() if digest not in named}
    if not dry_run:
        # Names before blobs: a reader never finds a bundle whose blobs are gone.
        for entry in old:
            store.delete_manifest(entry)
        for digest in orphans:
            store.delete_blob(digest)
    return Swept(tuple(old), tuple(orphans), sum(orphans.values()))
