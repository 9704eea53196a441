"""A bundle: which layers make up one app's environment, in a canonical form whose SHA-256 is the bundle's name."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from rayline.engines import Engine
from rayline.errors import BlobCorrupt, BundleRefused, WrongPlatform

BUNDLE_VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 16 * 2**20
MAX_LAYERS: Final = 5_000
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")


class LayerKind(StrEnum):
    """INTERPRETER: Python itself. PACKAGE: one wheel, installed. PLATFORM: what Rayline's actors need. APP: the user's files.
    NATIVE: libraries and programs of this app. MODEL: one model. CONDA: a whole conda environment."""

    INTERPRETER = "interpreter"
    PACKAGE = "package"
    PLATFORM = "platform"
    APP = "app"
    NATIVE = "native"
    MODEL = "model"
    CONDA = "conda"


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob: a zstd-compressed tar of paths below the environment's root.

    `digest` and `size_bytes` are of the compressed blob, `content_bytes` is the tar inside, `files` its members.
    """

    name: str
    kind: LayerKind
    digest: str
    size_bytes: int
    content_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Host:
    """What a bundle was made for, and what a machine is: system, processor, and the C library with its version."""

    system: str
    machine: str
    libc: str
    libc_version: tuple[int, ...]

    @classmethod
    def here(cls) -> Host:
        name, version = platform.libc_ver()
        return cls(sys.platform, platform.machine(), name or "unknown", _numbers(version))

    def require(self, wanted: Host, what: str) -> None:
        """Raise WrongPlatform unless what was made for `wanted` runs on this machine."""
        if (wanted.system, wanted.machine, wanted.libc) != (self.system, self.machine, self.libc):
            raise WrongPlatform(f"{what} was built for {wanted}, this machine is {self}: build it on a machine of this kind")
        if wanted.libc_version > self.libc_version:
            raise WrongPlatform(
                f"{what} was built with {wanted}, this machine has the older {self}: build it on the oldest system it must run on"
            )

    def __str__(self) -> str:
        return f"{self.system}/{self.machine}/{self.libc}-{'.'.join(map(str, self.libc_version))}"


@dataclass(frozen=True, slots=True)
class Model:
    """A model inside the bundle: `path` below the environment's root; `digest` of what the user named, or of its layer.

    `size_bytes` is None for a remote source whose size was not declared.
    """

    name: str
    path: str
    digest: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything that a node needs to know; holds no secret, no address and no path of the machine that built it."""

    app: str
    app_version: str
    entrypoint: str
    python: str
    host: Host
    layers: tuple[Layer, ...]
    constructor: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    packages: tuple[str, ...] = ()
    startup_seconds: float = 60.0
    engine: Engine | None = None

    @property
    def digest(self) -> str:
        """`sha256:…` of the canonical form: equal contents have equal names, wherever they were built."""
        return sha256(canonical(self.as_dict()))

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def content_bytes(self) -> int:
        return sum(layer.content_bytes for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        data = {"v": BUNDLE_VERSION, **asdict(self)}
        if self.engine is None:
            # A Rayline that knows no engines reads what names none.
            del data["engine"]
        return data

    @classmethod
    def from_dict(cls, data: Any) -> Bundle:
        """Read `as_dict` back; raises BundleRefused for what is not of this version and form."""
        try:
            if data.get("v") != BUNDLE_VERSION:
                raise BundleRefused(
                    f"a bundle of version {data.get('v')!r}; this Rayline reads version {BUNDLE_VERSION}: upgrade it"
                )
            values = {name: value for name, value in data.items() if name != "v"}
            if len(values["layers"]) > MAX_LAYERS:
                raise BundleRefused(f"a bundle of {len(values['layers'])} layers; {MAX_LAYERS} are allowed")
            values["layers"] = tuple(_layer(one) for one in values["layers"])
            host = values["host"]
            values["host"] = Host(**{**host, "libc_version": tuple(map(int, host["libc_version"]))})
            values["models"] = tuple(Model(**one) for one in values["models"])
            values["packages"] = tuple(map(str, values["packages"]))
            if "engine" in values:
                values["engine"] = _engine(values["engine"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleRefused(f"not a bundle manifest: {error!r}") from error


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no white space, UTF-8: one value, one sequence of bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of `sha256:…`, safe as a file name; raises BlobCorrupt for anything else."""
    if not _DIGEST.match(digest):
        raise BlobCorrupt(f"{digest[:80]!r} is no digest; right would be sha256: and 64 hexadecimal digits")
    return digest.removeprefix("sha256:")


def _layer(data: Mapping[str, Any]) -> Layer:
    layer = Layer(**{**data, "kind": LayerKind(data["kind"])})
    hex_of(layer.digest)
    numbers = (layer.size_bytes, layer.content_bytes, layer.files)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError(f"layer {layer.name!r} with sizes {numbers}")
    return layer


def _engine(data: Mapping[str, Any]) -> Engine:
    return Engine(str(data["name"]), tuple((str(card), str(provider)) for card, provider in data["providers"]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
