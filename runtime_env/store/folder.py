"""A store in a folder: what `rayline env build` writes to, and what any web server can serve as it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from rayline.errors import NotInStore, StoreError
from rayline.file_locks import exclusively
from runtime_env.durable import disk_full_told, sync_folder, write_durably
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
from runtime_env.transfer import OnBytes, unheard

_CHUNK: Final = 2**20


class FolderStore:
    """Owns nothing but the folder's form: several processes may read and write it at once. Blobs appear whole or not at all."""

    def __init__(self, *, path: Path) -> None:
        self._path = path

    @property
    def url(self) -> str:
        return str(self._path)

    def entries(self) -> list[ManifestEntry]:
        return parsed(self._names("manifests/*/*.json"), ManifestEntry.parse)

    def model_entries(self) -> list[ModelEntry]:
        return parsed(self._names("models/*/*/*.json"), ModelEntry.parse)

    def get_manifest(self, ref: str) -> SignedBundle:
        entry = resolve(self.entries(), ref, self.url)
        return checked_manifest(self._read(entry.path), entry)

    def put_manifest(self, signed: SignedBundle) -> int:
        return self._put(ManifestEntry(signed.bundle.app, signed.counter, signed.bundle.digest), signed.to_bytes())

    def get_model(self, entry: ModelEntry) -> SignedModel:
        return checked_model(self._read(entry.path), entry)

    def put_model(self, signed: SignedModel) -> int:
        return self._put(ModelEntry.of(signed), signed.to_bytes())

    def has_blob(self, digest: str) -> bool:
        return (self._path / blob_path(digest)).exists()

    def open_blob(self, digest: str, offset: int = 0, length: int | None = None) -> BinaryIO:  # noqa: ARG002
        path = self._path / blob_path(digest)
        with self._telling():
            try:
                file = path.open("rb")
            except FileNotFoundError as error:
                raise NotInStore(f"{self.url} has no blob {digest}") from error
            file.seek(offset)
            return file

    def get_metainfo(self, digest: str) -> BlobMetainfo:
        return checked_metainfo(self._read(metainfo_path(digest)), digest)

    def put_metainfo(self, metainfo: BlobMetainfo) -> int:
        path = self._path / metainfo_path(metainfo.digest)
        if path.exists():
            return 0
        data = metainfo.to_bytes()
        with self._telling():
            write_durably(path, data)
        return len(data)

    def put_blob(self, digest: str, source: Path, on_bytes: OnBytes = unheard, /) -> int:
        path = self._path / blob_path(digest)
        if path.exists():
            return 0
        with self._telling(), disk_full_told(self._path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".put-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file, source.open("rb") as given:
                    while data := given.read(_CHUNK):
                        file.write(data)
                        on_bytes(len(data))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).chmod(0o444)
                Path(name).rename(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
        return path.stat().st_size

    def blobs(self) -> Iterator[tuple[str, int]]:
        for path in self._path.glob("blobs/sha256/??/*"):
            if not path.name.startswith("."):
                yield f"sha256:{path.name}", path.stat().st_size

    def delete_blob(self, digest: str) -> None:
        with self._telling():
            (self._path / metainfo_path(digest)).unlink(missing_ok=True)
            (self._path / blob_path(digest)).unlink(missing_ok=True)

    def delete_manifest(self, entry: ManifestEntry) -> None:
        self._delete(entry)

    def delete_model(self, entry: ModelEntry) -> None:
        self._delete(entry)

    def _put(self, entry: ManifestEntry | ModelEntry, data: bytes) -> int:
        with self._telling(), self._locked():
            write_durably(self._path / entry.path, data)
            self._write_index()
        return len(data)

    def _delete(self, entry: ManifestEntry | ModelEntry) -> None:
        with self._telling(), self._locked():
            (self._path / entry.path).unlink(missing_ok=True)
            with suppress(OSError):
                (self._path / entry.path).parent.rmdir()
            self._write_index()

    def _write_index(self) -> None:
        write_durably(self._path / INDEX, index_bytes([*self.entries(), *self.model_entries()]))

    def _names(self, pattern: str) -> Iterator[str]:
        return (path.relative_to(self._path).as_posix() for path in self._path.glob(pattern))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer of the index at a time; the kernel frees the lock of one that dies."""
        self._path.mkdir(parents=True, exist_ok=True)
        with exclusively(self._path / ".lock"):
            yield

    def _read(self, path: str) -> bytes:
        with self._telling():
            return (self._path / path).read_bytes()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotInStore(f"{self.url}: there is no {error.filename}") from error
        except OSError as error:
            raise StoreError(f"store {self.url}: {error}") from error
