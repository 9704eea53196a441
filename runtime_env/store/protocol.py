"""What every store can do, and how its files are named.

blobs/sha256/ab/abcdef…                    one layer
peers/sha256/ab/abcdef…                    its description for peers (`runtime_env.peers.metainfo`)
manifests/<app>/<counter>-<digest>.json    one signed bundle
models/<app>/<model>/<counter>-<digest>.json    one signed model
manifests/index.json                       all names of bundles and models, for stores that cannot be listed (HTTP)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from rayline.errors import BlobCorrupt, NotInStore, StoreError
from runtime_env.bundle import hex_of
from runtime_env.model_release import SignedModel
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.signing import SignedBundle
from runtime_env.transfer import OnBytes, unheard

INDEX: Final = "manifests/index.json"
_MANIFEST: Final = re.compile(r"manifests/(?P<app>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<counter>\d{8,})-(?P<hex>[0-9a-f]{64})\.json\Z")
_MODEL: Final = re.compile(
    r"models/(?P<app>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<name>[a-z][a-z0-9_-]{0,63})/(?P<counter>\d{8,})-(?P<hex>[0-9a-f]{64})\.json\Z"
)
_MIN_HEX: Final = 6


@dataclass(frozen=True, slots=True, order=True)
class ManifestEntry:
    """One publication of an app's bundle; the newest is the greatest."""

    app: str
    counter: int
    digest: str

    @property
    def path(self) -> str:
        return f"manifests/{self.app}/{self.counter:08d}-{hex_of(self.digest)}.json"

    @classmethod
    def parse(cls, path: str) -> ManifestEntry | None:
        """The entry that a store's path stands for; None for any other file."""
        match = _MANIFEST.match(path)
        return cls(match["app"], int(match["counter"]), f"sha256:{match['hex']}") if match else None


@dataclass(frozen=True, slots=True, order=True)
class ModelEntry:
    """One publication of an app's model; the newest is the greatest."""

    app: str
    name: str
    counter: int
    digest: str

    @property
    def path(self) -> str:
        return f"models/{self.app}/{self.name}/{self.counter:08d}-{hex_of(self.digest)}.json"

    @classmethod
    def parse(cls, path: str) -> ModelEntry | None:
        """The entry that a store's path stands for; None for any other file."""
        match = _MODEL.match(path)
        return cls(match["app"], match["name"], int(match["counter"]), f"sha256:{match['hex']}") if match else None

    @classmethod
    def of(cls, signed: SignedModel) -> ModelEntry:
        release = signed.release
        return cls(release.app, release.model.name, signed.counter, release.digest)


Entry = TypeVar("Entry", ManifestEntry, ModelEntry)


class Store(Protocol):
    """A place to read bundles from. Methods block; errors are StoreError, and NotInStore for what is not there."""

    @property
    def url(self) -> str:
        """How people name it, without passwords."""
        ...

    def entries(self) -> list[ManifestEntry]:
        """All publications, oldest first."""
        ...

    def get_manifest(self, ref: str) -> SignedBundle:
        """The bundle that `APP` (its newest), `APP@COUNTER` or `APP@sha256:HEX…` names; not checked for its signature."""
        ...

    def model_entries(self) -> list[ModelEntry]:
        """All publications of models, by app and model, oldest first."""
        ...

    def get_model(self, entry: ModelEntry) -> SignedModel:
        """What was published; not checked for its signature."""
        ...

    def has_blob(self, digest: str) -> bool: ...

    def open_blob(self, digest: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        """The blob's bytes from `offset` on; the caller closes it, and checks the digest of what it reads.

        `length` is how much of them will be read, where that is known: a store over a network sends no more.
        """
        ...

    def get_metainfo(self, digest: str) -> BlobMetainfo:
        """How peers name the blob's pieces; not trusted, as nothing else in a store. Raises NotInStore, BlobCorrupt."""
        ...


class WritableStore(Store, Protocol):
    """A store that bundles can be added to and removed from."""

    def put_manifest(self, signed: SignedBundle) -> int:
        """Add a publication, whose blobs must be there; returns the bytes moved."""
        ...

    def put_model(self, signed: SignedModel) -> int:
        """Add a publication of a model, whose blob must be there; returns the bytes moved."""
        ...

    def put_blob(self, digest: str, source: Path, on_bytes: OnBytes = unheard, /) -> int:
        """Add a blob, telling how many bytes more are there; returns the bytes moved: 0 where it is already."""
        ...

    def put_metainfo(self, metainfo: BlobMetainfo) -> int:
        """Add a blob's description for peers; returns the bytes moved: 0 where it is already."""
        ...

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Digest and size of every blob."""
        ...

    def delete_blob(self, digest: str) -> None:
        """The blob and its description."""
        ...

    def delete_manifest(self, entry: ManifestEntry) -> None: ...

    def delete_model(self, entry: ModelEntry) -> None: ...


def blob_path(digest: str) -> str:
    name = hex_of(digest)
    return f"blobs/sha256/{name[:2]}/{name}"


def metainfo_path(digest: str) -> str:
    name = hex_of(digest)
    return f"peers/sha256/{name[:2]}/{name}"


def checked_metainfo(data: bytes, digest: str) -> BlobMetainfo:
    """The description read for `digest`; raises BlobCorrupt when it is of another blob."""
    metainfo = BlobMetainfo.from_bytes(data)
    if metainfo.digest != digest:
        raise BlobCorrupt(f"the description of {digest} is that of {metainfo.digest}: the store was tampered with")
    return metainfo


def resolve(entries: Iterable[ManifestEntry], ref: str, where: str) -> ManifestEntry:
    """The publication that `ref` names; raises NotInStore for none, StoreError for more than one."""
    app, _, wanted = ref.partition("@")
    known = sorted(entry for entry in entries if entry.app == app)
    if not known:
        raise NotInStore(
            f"{where} has no bundle of {app!r}; `rayline env build` makes one, `rayline env list` shows what is there"
        )
    if not wanted:
        return known[-1]
    if wanted.isdigit():
        found = [entry for entry in known if entry.counter == int(wanted)]
    else:
        prefix = wanted.removeprefix("sha256:")
        if len(prefix) < _MIN_HEX:
            raise StoreError(f"{ref!r}: give a counter, or at least {_MIN_HEX} digits of the digest")
        found = [entry for entry in known if hex_of(entry.digest).startswith(prefix)]
    if not found:
        raise NotInStore(f"{where} has no bundle {ref!r}; it has {', '.join(f'{app}@{entry.counter}' for entry in known)}")
    if len({entry.digest for entry in found}) > 1:
        raise StoreError(f"{ref!r} names more than one bundle: give more digits")
    return found[-1]


def checked_manifest(data: bytes, entry: ManifestEntry) -> SignedBundle:
    """The manifest read from `entry`; raises StoreError when it is another one than its name says."""
    signed = SignedBundle.from_bytes(data)
    if (signed.bundle.app, signed.counter, signed.bundle.digest) != (entry.app, entry.counter, entry.digest):
        raise StoreError(f"{entry.path} holds another bundle than its name says ({signed.ref}): the store was tampered with")
    return signed


def resolve_model(entries: Iterable[ModelEntry], app: str, name: str, counter: int | None, where: str) -> ModelEntry:
    """One publication of a model, by its number (None: the newest); raises NotInStore."""
    known = sorted(entry for entry in entries if (entry.app, entry.name) == (app, name))
    if not known:
        raise NotInStore(f"{where} has no model {name!r} of {app!r}; `rayline model publish {app} {name} PATH` puts one there")
    found = [entry for entry in known if counter in (None, entry.counter)]
    if not found:
        raise NotInStore(
            f"{where} has no {name}@{counter} of {app!r}; it has {', '.join(f'{name}@{one.counter}' for one in known)}"
        )
    return found[-1]


def checked_model(data: bytes, entry: ModelEntry) -> SignedModel:
    """The model read from `entry`; raises StoreError when it is another one than its name says."""
    signed = SignedModel.from_bytes(data)
    if ModelEntry.of(signed) != entry:
        raise StoreError(f"{entry.path} holds another model than its name says ({signed.ref}): the store was tampered with")
    return signed


def index_bytes(entries: Iterable[ManifestEntry | ModelEntry]) -> bytes:
    return json.dumps(sorted(entry.path for entry in entries), indent=0).encode()


def read_index(data: bytes) -> tuple[list[ManifestEntry], list[ModelEntry]]:
    """Bundles and models, oldest first; raises StoreError for what is no index."""
    try:
        paths = [str(path) for path in json.loads(data)]
    except (ValueError, TypeError) as error:
        raise StoreError(f"{INDEX} cannot be read: {error}") from error
    return parsed(paths, ManifestEntry.parse), parsed(paths, ModelEntry.parse)


def parsed(paths: Iterable[str], parse: Callable[[str], Entry | None]) -> list[Entry]:
    """The entries that paths of a store stand for, oldest first."""
    found = (parse(path) for path in paths)
    return sorted(entry for entry in found if entry is not None)
