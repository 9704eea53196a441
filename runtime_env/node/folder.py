"""Where a node keeps what it fetched and unpacked: content-addressed, leased by whoever runs from it, collected otherwise.

    blobs/<hex>            what was fetched (`runtime_env.peers.cache`)
    unpacked/envs/<hex>    environments, and
    unpacked/layers/<hex>  the layers that they are made of (`runtime_env.unpack`)
    leases/<hex>           locked by whoever uses the environment, layer or model of that digest
    seen.json              counters of what was used (`runtime_env.admission`)
    .lock                  held by the one process that changes what lies here

Several pods of one machine may share a folder: each thing is then fetched and unpacked once.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rayline.errors import BundleRefused, ConfigError
from rayline.file_locks import FileLease, exclusively, is_locked
from runtime_env.admission import SeenCounters
from runtime_env.bundle import Bundle, Layer, hex_of
from runtime_env.peers.cache import BlobCache
from runtime_env.unpack import BUNDLE_FILE, discard_folders, unpack, unpack_layers


@dataclass(frozen=True, slots=True)
class Kept:
    """One environment, or one layer that is used by itself: its last use (ns), and the layers it needs, with their bytes."""

    digest: str
    used_ns: int
    layers: Mapping[str, int]
    leased: bool


def choose_discards(kept: Iterable[Kept], *, quota_bytes: int) -> list[Kept]:
    """What must go, least recently used first and never what is leased, until the layers of the rest fit into the quota."""
    left = sorted(kept, key=lambda one: (one.used_ns, one.digest))
    chosen: list[Kept] = []
    for one in list(left):
        if _layer_bytes(left) <= quota_bytes:
            break
        if not one.leased:
            left.remove(one)
            chosen.append(one)
    return chosen


class NodeFolder:
    """Owns the folder's layout, leases and collection. Does not own what decides what is fetched (`runtime_env.node.activation`).

    Usable from any number of threads and processes; `changing` is held by the one that fetches, unpacks or collects.
    """

    def __init__(self, *, path: Path, quota_bytes: int) -> None:
        """`quota_bytes` bounds what is unpacked beside what is in use, and as much again the fetched archives.

        Raises ConfigError for a folder that others may write to: what lies in it is run.
        """
        self.path = path.absolute()
        _make_own_folder(self.path)
        self.unpacked = self.path / "unpacked"
        self._leases = self.path / "leases"
        self._quota_bytes = quota_bytes
        self._leases.mkdir(parents=True, exist_ok=True)
        self.unpacked.mkdir(exist_ok=True)
        self.blobs = BlobCache(path=self.path / "blobs", quota_bytes=quota_bytes)
        self.seen = SeenCounters(path=self.path / "seen.json")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who fetches, unpacks or collects; blocks while another process does."""
        with exclusively(self.path / ".lock"):
            yield

    def environment(self, digest: str) -> Path:
        """Where a bundle's environment is, or would be."""
        return self.unpacked / "envs" / hex_of(digest)

    def layer(self, digest: str) -> Path:
        """Where an unpacked layer's tree is, or would be; read-only, and shared by all who use it."""
        return self.unpacked / "layers" / hex_of(digest) / "tree"

    def lease_file(self, digest: str) -> Path:
        """The file of which a shared lock is a lease, for processes that have only its path."""
        return self._leases / hex_of(digest)

    def lease(self, digest: str) -> FileLease:
        """A lease on what the digest names (a bundle or a layer); take it before looking whether it is there."""
        path = self.lease_file(digest)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(handle, fcntl.LOCK_SH)
            if os.fstat(handle).st_nlink:
                os.utime(handle)
                return FileLease(handle=handle)
            # It was collected between the two calls.
            os.close(handle)

    def place(self, bundle: Bundle, blobs: Mapping[str, Path]) -> Path:
        """Unpack an admitted bundle from local blobs (by digest); returns its environment. Raises as `unpack`."""
        return unpack(bundle, blobs, self.unpacked)

    def place_layers(self, layers: Iterable[Layer], blobs: Mapping[str, Path]) -> list[Path]:
        """Unpack layers that are used by themselves, such as models; returns their trees. Raises as `place`."""
        wanted = list(layers)
        unpack_layers(wanted, blobs, self.unpacked)
        return [self.layer(layer.digest) for layer in wanted]

    def collect(self) -> list[str]:
        """Remove what is not leased and over the quota, and layers that no environment needs and nobody ever leased.

        Returns the digests that went. Call it while `changing`.
        """
        kept = self._kept()
        over = choose_discards(kept, quota_bytes=self._quota_bytes)
        gone = [one.digest for one in over if self._discard(one.digest)]
        needed = {digest for one in kept if one.digest not in gone for digest in one.layers}
        loose = [digest for digest in _digests(self.unpacked / "layers") if digest not in needed]
        gone += [digest for digest in loose if self._discard(digest)]
        return gone

    def _kept(self) -> list[Kept]:
        environments = [self._kept_environment(digest) for digest in _digests(self.unpacked / "envs")]
        alone = [
            Kept(digest, self._used_ns(digest), {digest: _tree_bytes(self.layer(digest))}, self.is_leased(digest))
            for digest in _digests(self.unpacked / "layers")
            if self.lease_file(digest).exists()
        ]
        return environments + alone

    def _kept_environment(self, digest: str) -> Kept:
        try:
            bundle = Bundle.from_dict(json.loads((self.environment(digest) / BUNDLE_FILE).read_bytes()))
            layers = {layer.digest: layer.content_bytes for layer in bundle.layers}
        except (OSError, ValueError, BundleRefused):
            # Half of one that an earlier Rayline left: its layers are not known, and it goes as soon as anything does.
            layers = {}
        return Kept(digest, self._used_ns(digest), layers, self.is_leased(digest))

    def is_leased(self, digest: str) -> bool:
        """Whether anybody holds a lease now."""
        return is_locked(self.lease_file(digest))

    def _discard(self, digest: str) -> bool:
        """Under an exclusive lock, so that nobody takes a lease on what is about to go; False where somebody has one."""
        path = self.lease_file(digest)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            discard_folders(self.unpacked, self.environment(digest), self.layer(digest).parent)
            path.unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    def _used_ns(self, digest: str) -> int:
        try:
            return self.lease_file(digest).stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def _make_own_folder(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ConfigError(
            f"{path} belongs to user {status.st_uid} with mode {status.st_mode & 0o777:o}: a node's folder must be writable by "
            "its own user alone; name another one in RAYLINE_NODE_DIR, or mend its owner and mode"
        )


def _layer_bytes(kept: Iterable[Kept]) -> int:
    return sum({digest: size for one in kept for digest, size in one.layers.items()}.values())


def _digests(folder: Path) -> list[str]:
    try:
        return sorted(f"sha256:{name}" for name in os.listdir(folder) if len(name) == 64)  # noqa: PTH208 - names alone
    except FileNotFoundError:
        return []


def _tree_bytes(tree: Path) -> int:
    return sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
