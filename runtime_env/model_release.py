"""One published version of a model: which blob it is, where in it the model lies, and who vouches for that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from rayline.errors import BundleRefused
from rayline.models import MODEL_NAME
from runtime_env.bundle import Layer, LayerKind, Model, canonical, hex_of, sha256
from runtime_env.signing import SigningKey

MODEL_VERSION: Final = 1
# A release is one layer and a few names.
MAX_RELEASE_BYTES: Final = 64 * 2**10
_CONTEXT: Final = b"rayline model v1\0"


@dataclass(frozen=True, slots=True)
class ModelRelease:
    """A model of an app, in one version: `model.path` is below the root of the unpacked `layer`."""

    app: str
    model: Model
    layer: Layer

    @property
    def digest(self) -> str:
        """`sha256:…` of the canonical form."""
        return sha256(canonical(self.as_dict()))

    def as_dict(self) -> dict[str, Any]:
        return {"v": MODEL_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> ModelRelease:
        """Read `as_dict` back; raises BundleRefused for what is not of this version and form."""
        try:
            if data["v"] != MODEL_VERSION:
                raise BundleRefused(f"a model of version {data['v']!r}; this Rayline reads version {MODEL_VERSION}: upgrade it")
            layer = Layer(**{**data["layer"], "kind": LayerKind(data["layer"]["kind"])})
            model = Model(**data["model"])
            numbers = (layer.size_bytes, layer.content_bytes, layer.files)
            if not all(isinstance(number, int) and number >= 0 for number in numbers) or layer.kind is not LayerKind.MODEL:
                raise ValueError(f"a layer of kind {layer.kind} with sizes {numbers}")
            hex_of(layer.digest)
            if not MODEL_NAME.fullmatch(model.name):
                raise ValueError(f"the name {model.name!r}")
            parts = PurePosixPath(model.path).parts
            if parts[:2] != ("models", model.name) or ".." in parts:
                raise ValueError(f"the path {model.path!r}")
            return cls(str(data["app"]), model, layer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleRefused(f"not a model's manifest: {error!r}") from error


@dataclass(frozen=True, slots=True)
class SignedModel:
    """What lies in a store: a release, its number among the publications of that model, and who vouches for both."""

    release: ModelRelease
    counter: int
    signatures: Mapping[str, str]

    @property
    def ref(self) -> str:
        return f"{self.release.app}/{self.release.model.name}@{self.release.digest}"

    def signed_part(self) -> bytes:
        return _CONTEXT + canonical({"model": self.release.as_dict(), "counter": self.counter})

    def to_bytes(self) -> bytes:
        return canonical({"v": 1, "model": self.release.as_dict(), "counter": self.counter, "signatures": dict(self.signatures)})

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedModel:
        """Raises BundleRefused for what is no signed model; the signature itself is checked by `Trust.check`."""
        if len(data) > MAX_RELEASE_BYTES:
            raise BundleRefused(f"a model's manifest of {len(data)} bytes; {MAX_RELEASE_BYTES} are allowed")
        try:
            found: Any = json.loads(data)
            counter, signatures = found["counter"], found["signatures"]
            if not isinstance(counter, int) or isinstance(counter, bool) or counter < 1 or not isinstance(signatures, dict):
                raise ValueError(f"counter {counter!r}")
            release = ModelRelease.from_dict(found["model"])
            return cls(release, counter, {str(key): str(value) for key, value in signatures.items()})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleRefused(f"not a signed model: {error!r}") from error


def sign_model(release: ModelRelease, counter: int, key: SigningKey | None) -> SignedModel:
    """Without a key: unsigned, for development."""
    unsigned = SignedModel(release, counter, {})
    return unsigned if key is None else SignedModel(release, counter, key.signatures(unsigned))
