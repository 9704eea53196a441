"""Hostile and honest layers, and bundles of them, without a build."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

from runtime_env.bundle import Bundle, Host, Layer, LayerKind, sha256
from runtime_env.layer_writer import pack

Member = tuple[tarfile.TarInfo, bytes]


def member(path: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    return info, data


def symlink(path: str, target: str) -> Member:
    return member(path, kind=tarfile.SYMTYPE, link=target)


def archive(members: Sequence[Member]) -> bytes:
    """A tar as anybody may write it, uncompressed: `tarfile` writes whatever it is told to."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def layer_of(content: bytes, folder: Path, *, name: str = "layer", files: int = 1000) -> tuple[Layer, Path]:
    """A blob whose manifest entry is honest about it, whatever it holds."""
    blob = zstandard.ZstdCompressor().compress(content)
    digest = sha256(blob)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / digest.removeprefix("sha256:")
    path.write_bytes(blob)
    return Layer(name, LayerKind.PACKAGE, digest, len(blob), len(content), files), path


def packed_layer(tree: Path, folder: Path, *, name: str = "layer", kind: LayerKind = LayerKind.PACKAGE) -> tuple[Layer, Path]:
    """A layer as a build makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{name}.blob"
    with made.open("wb") as file:
        packed = pack(tree, file)
    path = made.rename(folder / packed.digest.removeprefix("sha256:"))
    return Layer(name, kind, packed.digest, packed.size_bytes, packed.content_bytes, packed.files), path


def bundle_of(*layers: Layer, app: str = "app", version: str = "v1", host: Host | None = None) -> Bundle:
    return Bundle(app=app, app_version=version, entrypoint="feature:f", python="3.11.7", host=host or Host.here(), layers=layers)
