"""Where bundles lie: blobs by their digest and signed manifests by app, behind one protocol."""

from __future__ import annotations

from runtime_env.store.folder import FolderStore
from runtime_env.store.opening import open_store, open_writable_store
from runtime_env.store.protocol import ManifestEntry, Store, WritableStore
from runtime_env.store.publishing import Published, publish

__all__ = ["FolderStore", "ManifestEntry", "Published", "Store", "WritableStore", "open_store", "open_writable_store", "publish"]
