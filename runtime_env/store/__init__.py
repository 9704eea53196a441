"""Where bundles lie: blobs by their digest and signed manifests by app, behind one protocol."""

from __future__ import annotations

from runtime_env.store.folder import FolderStore
from runtime_env.store.opening import open_store, open_writable_store
from runtime_env.store.protocol import ManifestEntry, ModelEntry, Store, WritableStore, resolve_model
from runtime_env.store.publishing import Published, PublishedModel, publish, publish_model

__all__ = [
    "FolderStore",
    "ManifestEntry",
    "ModelEntry",
    "Published",
    "PublishedModel",
    "Store",
    "WritableStore",
    "open_store",
    "open_writable_store",
    "publish",
    "publish_model",
    "resolve_model",
]
