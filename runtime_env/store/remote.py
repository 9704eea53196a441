"""A store in a bucket, or on anything else that fsspec opens: `s3://bucket/folder`, `gs://…`, `memory://…`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from rayline.errors import NotInStore, RaylineError, StoreError
from runtime_env.model_release import SignedModel
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.signing import SignedBundle
from runtime_env.store.protocol import (
    INDEX,
    ManifestEntry,
    ModelEntry,
    blob_path,
    checked_manifest,
    checked_metainfo,
    checked_model,
    index_bytes,
    metainfo_path,
    parsed,
    resolve,
)
from runtime_env.store.reading import ToldReads
from runtime_env.store.slices import SlicedReads
from runtime_env.transfer import OnBytes, unheard


class RemoteStore:
    """Owns one fsspec file system. Object stores show an object whole or not at all; the index is written last."""

    def __init__(self, *, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise StoreError(f"{url}: install fsspec for it: pip install 'rayline[remote]'") from error
        self._url = url.rstrip("/")
        with self._telling():
            system, root = fsspec.core.url_to_fs(self._url)
        self._files: Any = system
        self._root = str(root).rstrip("/")

    @property
    def url(self) -> str:
        return self._url

    def entries(self) -> list[ManifestEntry]:
        return parsed((path for path, _ in self._list("manifests")), ManifestEntry.parse)

    def model_entries(self) -> list[ModelEntry]:
        return parsed((path for path, _ in self._list("models")), ModelEntry.parse)

    def get_model(self, entry: ModelEntry) -> SignedModel:
        with self._telling():
            data: bytes = self._files.cat_file(self._at(entry.path))
        return checked_model(data, entry)

    def put_model(self, signed: SignedModel) -> int:
        return self._put(ModelEntry.of(signed), signed.to_bytes())

    def get_manifest(self, ref: str) -> SignedBundle:
        entry = resolve(self.entries(), ref, self.url)
        with self._telling():
            data: bytes = self._files.cat_file(self._at(entry.path))
        return checked_manifest(data, entry)

    def put_manifest(self, signed: SignedBundle) -> int:
        return self._put(ManifestEntry(signed.bundle.app, signed.counter, signed.bundle.digest), signed.to_bytes())

    def has_blob(self, digest: str) -> bool:
        with self._telling():
            return bool(self._files.exists(self._at(blob_path(digest))))

    def open_blob(self, digest: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        with self._telling():
            # fsspec's default reads 5 to 50 MiB ahead: of a range among others' pieces, most of that would be for nothing.
            file = self._files.open(self._at(blob_path(digest)), "rb", cache_type="none")
            file.seek(offset)
        sliced = SlicedReads(file=file, length=length)
        return cast(BinaryIO, ToldReads(file=cast(BinaryIO, sliced), telling=self._telling))

    def get_metainfo(self, digest: str) -> BlobMetainfo:
        with self._telling():
            data: bytes = self._files.cat_file(self._at(metainfo_path(digest)))
        return checked_metainfo(data, digest)

    def put_metainfo(self, metainfo: BlobMetainfo) -> int:
        path, data = metainfo_path(metainfo.digest), metainfo.to_bytes()
        with self._telling():
            if self._files.exists(self._at(path)):
                return 0
            self._write(path, data)
        return len(data)

    def put_blob(self, digest: str, source: Path, on_bytes: OnBytes = unheard, /) -> int:
        if self.has_blob(digest):
            return 0
        with self._telling():
            path = self._at(blob_path(digest))
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(source), path, callback=_callback(on_bytes))
        return source.stat().st_size

    def blobs(self) -> Iterator[tuple[str, int]]:
        for path, size in self._list("blobs/sha256"):
            yield f"sha256:{path.rpartition('/')[2]}", size

    def delete_blob(self, digest: str) -> None:
        with self._telling():
            if self._files.exists(self._at(metainfo_path(digest))):
                self._files.rm_file(self._at(metainfo_path(digest)))
            self._files.rm_file(self._at(blob_path(digest)))

    def delete_manifest(self, entry: ManifestEntry) -> None:
        self._delete(entry)

    def delete_model(self, entry: ModelEntry) -> None:
        self._delete(entry)

    def _put(self, entry: ManifestEntry | ModelEntry, data: bytes) -> int:
        with self._telling():
            self._write(entry.path, data)
            self._write_index()
        return len(data)

    def _delete(self, entry: ManifestEntry | ModelEntry) -> None:
        with self._telling():
            self._files.rm_file(self._at(entry.path))
            self._write_index()

    def _write_index(self) -> None:
        self._write(INDEX, index_bytes([*self.entries(), *self.model_entries()]))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _write(self, path: str, data: bytes) -> None:
        self._files.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(self._at(path), data)

    def _list(self, below: str) -> list[tuple[str, int]]:
        with self._telling():
            self._files.invalidate_cache()
            found = self._files.find(self._at(below), detail=True)
        start = len(self._root) + 1
        return [(str(path)[start:], int(facts.get("size") or 0)) for path, facts in found.items()]

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """fsspec's file systems raise whatever their own clients do: each becomes a StoreError with the cause inside."""
        try:
            yield
        except RaylineError:
            raise
        except FileNotFoundError as error:
            raise NotInStore(f"{self._url} has no {error}") from error
        except Exception as error:
            raise StoreError(f"store {self._url}: {type(error).__name__}: {error}") from error


def _callback(on_bytes: OnBytes) -> Any:
    """What fsspec's file systems tell of their writes to: those that say anything give the sum."""
    from fsspec.callbacks import Callback

    told = 0

    def tell(_: int | None, value: int, **__: Any) -> None:
        nonlocal told
        told, more = value, value - told
        on_bytes(more)

    return Callback(hooks={"on_bytes": tell})
