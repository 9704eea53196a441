"""A node's own blobs on disk: bounded, least recently used first, and never one that somebody holds a lease on."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rayline.errors import DiskFull
from rayline.file_locks import FileLease, is_locked
from runtime_env.bundle import hex_of

INCOMING: Final = "incoming"
RESUME_SUFFIX: Final = ".resume"
DEFAULT_FREE_BYTES: Final = 512 * 2**20


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One file of the cache: when it was last of use (ns), its digest, and what it takes on disk."""

    used_ns: int
    digest: str
    bytes: int


def choose_evictions(entries: Iterable[Entry], *, kept: frozenset[str], free_bytes: int) -> list[Entry]:
    """The least recently used entries that are not `kept`, until they free so much; fewer bytes where there are no more."""
    chosen: list[Entry] = []
    freed = 0
    for entry in sorted(entries):
        if freed >= free_bytes:
            break
        if entry.digest not in kept:
            chosen.append(entry)
            freed += entry.bytes
    return chosen


class BlobCache:
    """Owns a folder: whole blobs by the digits of their digest, as `runtime_env.fetch` lays them, and `incoming/` with those that
    are on their way. Does not own what is inside them: whoever puts a blob here has checked it.

    Several processes may read and lease; one alone puts in and evicts.
    """

    def __init__(self, *, path: Path, quota_bytes: int, free_bytes: int = DEFAULT_FREE_BYTES) -> None:
        """`free_bytes` stay free on the disk whatever the quota says."""
        self._path = path
        self._quota_bytes = quota_bytes
        self._free_bytes = free_bytes
        self._lock = threading.RLock()
        self._reserved: dict[str, int] = {}
        (path / INCOMING).mkdir(parents=True, exist_ok=True)
        # What an owner does before a blob goes, such as to stop giving it to others.
        self.before_eviction: Callable[[str], None] = lambda _: None

    @property
    def path(self) -> Path:
        return self._path

    @property
    def incoming(self) -> Path:
        return self._path / INCOMING

    def blob(self, digest: str) -> Path:
        return self._path / hex_of(digest)

    def resume_file(self, digest: str) -> Path:
        return self.incoming / (hex_of(digest) + RESUME_SUFFIX)

    def find(self, digest: str) -> Path | None:
        """The whole blob, if it is here; that it was asked for counts as use."""
        path = self.blob(digest)
        if not path.exists():
            return None
        _touch(path)
        return path

    def digests(self) -> frozenset[str]:
        return frozenset(entry.digest for entry in self._whole())

    def lease(self, digest: str) -> FileLease | None:
        """A lease on a blob that is here, else None."""
        try:
            handle = os.open(self.blob(digest), os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(handle, fcntl.LOCK_SH)
        lease = FileLease(handle=handle)
        if os.fstat(handle).st_nlink == 0:
            # It was collected between the two calls.
            lease.release()
            return None
        _touch(self.blob(digest))
        return lease

    @contextmanager
    def room_for(self, digest: str, size_bytes: int) -> Iterator[None]:
        """Room for a blob while it comes in; evicts what is least recently used.

        Raises:
            DiskFull: what is leased or on its way leaves too little of the quota, or of the disk.
        """
        with self._lock:
            self._make_room(digest, size_bytes)
            self._reserved[digest] = size_bytes
        try:
            yield
        finally:
            with self._lock:
                del self._reserved[digest]

    def used_bytes(self) -> int:
        """What is on disk, parts included."""
        return sum(entry.bytes for entry in (*self._whole(), *self._parts()))

    def forget_part(self, digest: str) -> None:
        """Remove what came in of a blob so far."""
        (self.incoming / hex_of(digest)).unlink(missing_ok=True)
        self.resume_file(digest).unlink(missing_ok=True)

    def _make_room(self, digest: str, size_bytes: int) -> None:
        whole, parts = self._whole(), self._parts()
        coming = {entry.digest: entry.bytes for entry in parts if entry.digest in self._reserved or entry.digest == digest}
        promised = sum(self._reserved.values())
        idle_parts = [entry for entry in parts if entry.digest not in coming]
        held = sum(entry.bytes for entry in (*whole, *idle_parts))
        over_quota = held + promised + size_bytes - self._quota_bytes
        # Of what is promised and asked for, this much is still to be written.
        unwritten = promised + size_bytes - sum(coming.values())
        over_disk = unwritten + self._free_bytes - shutil.disk_usage(self._path).free
        missing = max(over_quota, over_disk)
        for entry in choose_evictions(idle_parts, kept=frozenset(), free_bytes=missing):
            self.forget_part(entry.digest)
            missing -= entry.bytes
        kept = frozenset(entry.digest for entry in whole if self._is_leased(entry.digest)) if missing > 0 else frozenset()
        chosen = choose_evictions(whole, kept=kept, free_bytes=missing)
        short = missing - sum(entry.bytes for entry in chosen)
        if short > 0:
            raise DiskFull(
                f"no room for {digest} ({size_bytes} bytes) in {self._path}: {short} bytes too few, with a quota of "
                f"{self._quota_bytes} and {self._free_bytes} to be left free on the disk; what is in use is never "
                "collected: raise the quota, or move an app elsewhere"
            )
        for entry in chosen:
            self._evict(entry.digest)

    def _evict(self, digest: str) -> None:
        """Under an exclusive lock, so that nobody takes a lease on what is about to go."""
        handle = os.open(self.blob(digest), os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self.before_eviction(digest)
            self.blob(digest).unlink()
        finally:
            os.close(handle)

    def _is_leased(self, digest: str) -> bool:
        return is_locked(self.blob(digest), access=os.O_RDONLY)

    def _whole(self) -> list[Entry]:
        return list(_entries(self._path))

    def _parts(self) -> list[Entry]:
        return list(_entries(self.incoming))


def _entries(folder: Path) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        for item in found:
            if len(item.name) == 64 and item.is_file(follow_symlinks=False):
                facts = item.stat(follow_symlinks=False)
                yield Entry(facts.st_atime_ns, f"sha256:{item.name}", facts.st_blocks * 512)


def _touch(path: Path) -> None:
    """Remember the use in the file's access time, which survives a restart; its time of change stays."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
