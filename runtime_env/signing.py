"""Signed bundles: an Ed25519 signature over the bundle's canonical form and its counter, and the keys that are trusted.

Models (`runtime_env.model_release`) are signed and trusted by the same keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from rayline.errors import BundleRefused, ConfigError, SignatureWrong, Unsigned
from runtime_env.bundle import MAX_MANIFEST_BYTES, Bundle, canonical

_CONTEXT: Final = b"rayline bundle v1\0"
_ALGORITHM: Final = "ed25519"


class Signed(Protocol):
    """What somebody vouches for: `ref` names exactly these contents, `signatures` are over `signed_part`, by the keys' names."""

    @property
    def ref(self) -> str: ...

    @property
    def signatures(self) -> Mapping[str, str]: ...

    def signed_part(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SignedBundle:
    """What lies in a store: a bundle, its counter (grows with each publication of the app) and who vouches for both."""

    bundle: Bundle
    counter: int
    signatures: Mapping[str, str]

    @property
    def ref(self) -> str:
        """`app@sha256:…`: names exactly these contents."""
        return f"{self.bundle.app}@{self.bundle.digest}"

    def signed_part(self) -> bytes:
        return _CONTEXT + canonical({"bundle": self.bundle.as_dict(), "counter": self.counter})

    def to_bytes(self) -> bytes:
        return canonical({"v": 1, "bundle": self.bundle.as_dict(), "counter": self.counter, "signatures": dict(self.signatures)})

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedBundle:
        """Raises BundleRefused for what is no signed bundle; the signature itself is checked by `TrustFile.check`."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise BundleRefused(f"a bundle manifest of {len(data)} bytes; {MAX_MANIFEST_BYTES} are allowed")
        try:
            found: Any = json.loads(data)
            counter, signatures = found["counter"], found["signatures"]
            if not isinstance(counter, int) or isinstance(counter, bool) or counter < 1 or not isinstance(signatures, dict):
                raise ValueError(f"counter {counter!r}")
            return cls(Bundle.from_dict(found["bundle"]), counter, {str(key): str(value) for key, value in signatures.items()})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleRefused(f"not a signed bundle: {error!r}") from error


class SigningKey:
    """One private key, read from a file that only its owner can read."""

    def __init__(self, *, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = base64.b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        self.name = key_name(self.public)

    @classmethod
    def generate(cls, path: Path) -> SigningKey:
        """Write a new private key (PEM, mode 0600); raises ConfigError where a file is already."""
        key = cls(private=Ed25519PrivateKey.generate())
        pem = key._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(pem)
                os.fsync(file.fileno())
        except FileExistsError as error:
            raise ConfigError(f"{path} exists; a key is never overwritten: name another file") from error
        return key

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Raises ConfigError for a file that is missing, no Ed25519 key, or readable by others."""
        try:
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
            private = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{path} is no signing key: {error}; `rayline env keygen` makes one") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(f"{path} holds another kind of key; `rayline env keygen` makes an Ed25519 one")
        return cls(private=private)

    def sign(self, bundle: Bundle, counter: int) -> SignedBundle:
        return SignedBundle(bundle, counter, self.signatures(SignedBundle(bundle, counter, {})))

    def signatures(self, unsigned: Signed) -> dict[str, str]:
        """This key's signature, by its name."""
        return {self.name: base64.b64encode(self._private.sign(unsigned.signed_part())).decode()}


def key_name(public: str) -> str:
    """The short name of a public key (base64): the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(base64.b64decode(public)).hexdigest()[:16]


class Trust:
    """The public keys that may vouch for bundles.

    A trust file has one key on each line: `ed25519 <base64> <comment>`; `#` begins a comment line. `development` lets
    unsigned bundles pass, never ones with a wrong signature.
    """

    def __init__(self, *, public_keys: Mapping[str, Ed25519PublicKey], development: bool = False) -> None:
        self._keys = dict(public_keys)
        self.development = development

    @property
    def names(self) -> list[str]:
        return sorted(self._keys)

    @classmethod
    def read(cls, path: Path | None, *, development: bool = False) -> Trust:
        """Raises ConfigError with file and line for what is no key. No path: nobody is trusted."""
        keys: dict[str, Ed25519PublicKey] = {}
        try:
            lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"trust file {path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                if words[0] != _ALGORITHM:
                    raise ValueError(f"kind {words[0]!r}")
                keys[key_name(words[1])] = Ed25519PublicKey.from_public_bytes(base64.b64decode(words[1], validate=True))
            except (ValueError, IndexError, binascii.Error) as error:
                raise ConfigError(f"{path}:{number}: no public key ({error}); right would be: ed25519 BASE64 COMMENT") from error
        return cls(public_keys=keys, development=development)

    def check(self, signed: Signed) -> None:
        """Raise Unsigned or SignatureWrong unless a trusted key vouches for exactly this bundle or model, and its counter."""
        if not signed.signatures:
            if self.development:
                return
            raise Unsigned(
                f"{signed.ref} is not signed: build or publish it with --key (`rayline env keygen` makes one); "
                "what is not signed is for development only (--dev)"
            )
        known = [(name, text) for name, text in signed.signatures.items() if name in self._keys]
        if not known:
            raise SignatureWrong(
                f"{signed.ref} is signed by {', '.join(sorted(signed.signatures))}, whom nobody here trusts; trusted: "
                f"{', '.join(self.names) or 'none'}: add the public key to the trust file, if it is right"
            )
        for name, text in known:
            try:
                self._keys[name].verify(base64.b64decode(text, validate=True), signed.signed_part())
            except (InvalidSignature, binascii.Error, ValueError) as error:
                raise SignatureWrong(
                    f"{signed.ref}: the signature of key {name} does not fit: the manifest was changed after it was signed; "
                    "do not use it, and look into who wrote to the store"
                ) from error
