"""From what people write (`--store`) to a store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from rayline.errors import StoreError
from runtime_env.store.folder import FolderStore
from runtime_env.store.http import HttpStore
from runtime_env.store.protocol import Store, WritableStore
from runtime_env.store.remote import RemoteStore


def open_store(url: str) -> Store:
    """A folder, `http(s)://…`, or any other scheme by fsspec; raises StoreError where its package is missing."""
    return HttpStore(url=url) if _is_http(url) else open_writable_store(url)


def open_writable_store(url: str) -> WritableStore:
    """As `open_store`; raises StoreError for HTTP, which is for reading."""
    if _is_http(url):
        raise StoreError(f"{HttpStore(url=url).url} is read over HTTP; write to the folder or bucket behind it")
    if "://" not in url or url.startswith("file://"):
        return FolderStore(path=Path(url.removeprefix("file://")).absolute())
    return RemoteStore(url=url)


def _is_http(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https") if "://" in url else False
