"""What builds share: finished layers by what they were made from, their blobs, and scratch folders that leave nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from runtime_env.bundle import Layer, LayerKind, canonical, hex_of, sha256
from runtime_env.durable import disk_full_told, write_durably
from runtime_env.layer_writer import COMPRESSION_LEVEL, pack
from runtime_env.transfer import OnBytes, OnTransfer, counted, unheard

# Raise it whenever a layer made from the same inputs would come out different.
LAYER_FORMAT: Final = 1


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/rayline/environments`, or below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rayline" / "environments"


class BuildCache:
    """Owns a folder; several builds may use it at once.

    A layer is remembered only when its blob is whole and in place (rename); a build that is killed leaves a scratch folder, which
    the next one removes, because the kernel has freed its lock.
    """

    def __init__(self, *, path: Path) -> None:
        self._path = path
        self._tmp = path / "tmp"

    @property
    def path(self) -> Path:
        return self._path

    def blob(self, digest: str) -> Path:
        return self._path / "blobs" / hex_of(digest)

    def layer(
        self,
        kind: LayerKind,
        name: str,
        made_from: Any,
        make: Callable[[Path], None],
        *,
        level: int = COMPRESSION_LEVEL,
        progress: OnTransfer = unheard,
    ) -> tuple[Layer, bool]:
        """The layer made from `made_from` (JSON), and whether it had to be made: `make` fills an empty folder with its tree.
        `progress` is told of its packing."""
        record = self._path / "layers" / f"{hex_of(sha256(canonical([LAYER_FORMAT, kind.value, name, made_from])))}.json"
        known = self._read(record)
        if known is not None:
            return known, False
        with self.scratch() as scratch:
            tree = scratch / "tree"
            tree.mkdir()
            make(tree)
            layer = self.pack(kind, name, tree, level=level, progress=progress)
        write_durably(record, canonical(asdict(layer)))
        return layer, True

    def pack(
        self, kind: LayerKind, name: str, tree: Path, *, level: int = COMPRESSION_LEVEL, progress: OnTransfer = unheard
    ) -> Layer:
        """Write a tree as a blob of this cache."""
        with self.scratch() as scratch:
            made = scratch / "blob"
            with made.open("wb") as file:
                packed = pack(tree, file, level=level, on_bytes=_packing(name, tree, progress))
                file.flush()
                os.fsync(file.fileno())
            blob = self.blob(packed.digest)
            blob.parent.mkdir(parents=True, exist_ok=True)
            made.chmod(0o444)
            made.rename(blob)
        return Layer(name, kind, packed.digest, packed.size_bytes, packed.content_bytes, packed.files)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder, gone at the end; raises DiskFull for what overflows in it."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        with disk_full_told(self._path), self._locked_name() as lock:
            folder = lock.with_suffix("")
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)

    @contextmanager
    def _locked_name(self) -> Iterator[Path]:
        """A new lock file that this process holds; made again when a sweep took it before it was locked."""
        while True:
            handle, name = tempfile.mkstemp(prefix="build-", suffix=".lock", dir=self._tmp)
            with os.fdopen(handle, "wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if Path(name).exists():
                    yield Path(name)
                    return

    def sweep(self) -> int:
        """Remove what killed builds left; returns how many folders."""
        swept = 0
        for path in sorted(self._tmp.glob("*.lock")):
            try:
                lock = path.open("r+b")
            except FileNotFoundError:
                continue  # its owner is done
            with lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    def _read(self, record: Path) -> Layer | None:
        """A remembered layer whose blob is here in full; None otherwise."""
        try:
            data = json.loads(record.read_bytes())
            layer = Layer(**{**data, "kind": LayerKind(data["kind"])})
            return layer if self.blob(layer.digest).stat().st_size == layer.size_bytes else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def _packing(name: str, tree: Path, progress: OnTransfer) -> OnBytes:
    """Nothing is summed up where nobody asked."""
    if progress is unheard:
        return unheard
    total_bytes = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    return counted(f"packing {name}", total_bytes, progress)
