"""Models: a file or folder of this machine, or what is read over the network, as a layer; alone, or as part of a bundle."""

from __future__ import annotations

import hashlib
import re
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, cast

from rayline.app_spec import ModelSource
from rayline.errors import BlobCorrupt, BlobTruncated, BuildError
from runtime_env.build.cache import BuildCache
from runtime_env.build.own_layers import file_facts, tree_files
from runtime_env.bundle import Layer, LayerKind, Model
from runtime_env.model_release import ModelRelease
from runtime_env.transfer import OnTransfer, counted, unheard

_CHUNK: Final = 2**20
_TIMEOUT_SECONDS: Final = 60.0
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)
# Weights hardly compress.
_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model as it could be published, and its layer's blob on this machine."""

    release: ModelRelease
    blob: Path


def build_model(cache: BuildCache, app: str, root: Path, source: ModelSource, *, progress: OnTransfer = unheard) -> BuiltModel:
    """Pack a model that is published by itself; a local `source` is below `root`. `progress` is told of its bytes.

    Raises:
        BuildError, BlobCorrupt, BlobTruncated: it is not there, cannot be read, or is not what was declared.
    """
    if "://" not in source.source and not root.joinpath(source.source).exists():
        raise BuildError(f"model {source.name}: there is no {root.joinpath(source.source)}")
    if "://" in source.source and not source.digest:
        raise BuildError(f"model {source.name}: give its --digest: what comes over the network is taken only by its SHA-256")
    model, layer, _ = model_layer(cache, root, source, progress=progress)
    return BuiltModel(ModelRelease(app, model, layer), cache.blob(layer.digest))


def model_layer(
    cache: BuildCache, root: Path, source: ModelSource, *, progress: OnTransfer = unheard
) -> tuple[Model, Layer, bool]:
    """A model and its layer, and whether that had to be made; raises as `build_model`."""
    layer, made = cache.layer(
        LayerKind.MODEL,
        source.name,
        _identity(root, source),
        lambda tree: _copy(root, source, tree, progress),
        level=_LEVEL,
        progress=progress,
    )
    return _model(root, source, layer.digest), layer, made


def _identity(root: Path, source: ModelSource) -> list[Any]:
    """What a model's layer is made from: its digest where it is declared, else the facts of its files."""
    if source.digest:
        return [source.name, _file_name(source), source.digest]
    path = root.joinpath(source.source)
    return [source.name, str(path), [file_facts(one, path) for one in tree_files(path)]]


def _copy(root: Path, source: ModelSource, tree: Path, progress: OnTransfer) -> None:
    """Fill `tree` with `models/<name>/…`; raises BlobCorrupt or BlobTruncated where digest or size are not what is declared."""
    target = tree / "models" / source.name
    target.mkdir(parents=True)
    path = root.joinpath(source.source)
    if "://" not in source.source and path.is_dir():
        if source.digest:
            raise BuildError(f"model {source.name}: {path} is a folder; `digest` is for a single file: drop it")
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
        return
    copied, digest = 0, hashlib.sha256()
    on_bytes = counted(f"reading {source.name}", _size_known(root, source), progress)
    with _opened(root, source) as given, (target / _file_name(source)).open("wb") as file:
        for data in _chunks(given, source):
            copied += len(data)
            if source.size_bytes is not None and copied > source.size_bytes:
                break
            digest.update(data)
            file.write(data)
            on_bytes(len(data))
    if source.size_bytes is not None and copied != source.size_bytes:
        raise BlobTruncated(f"model {source.name}: {source.source} has not the {source.size_bytes} bytes that are declared")
    if source.digest and f"sha256:{digest.hexdigest()}" != source.digest:
        raise BlobCorrupt(f"model {source.name}: {source.source} has sha256:{digest.hexdigest()}, declared is {source.digest}")


def _size_known(root: Path, source: ModelSource) -> int | None:
    """Of a single file, before it is read."""
    return source.size_bytes if "://" in source.source else root.joinpath(source.source).stat().st_size


def _model(root: Path, source: ModelSource, layer_digest: str) -> Model:
    """How the bundle names a model: a file by its path, a folder by the folder; without a declared digest, its layer's."""
    local = root.joinpath(source.source) if "://" not in source.source else None
    below = "" if local is not None and local.is_dir() else f"/{_file_name(source)}"
    size = sum(path.stat().st_size for path in tree_files(local)) if local is not None else source.size_bytes
    return Model(source.name, f"models/{source.name}{below}", source.digest or layer_digest, size)


def _file_name(source: ModelSource) -> str:
    """What a model's file is called in the bundle: an address goes without its query, which may hold a signature."""
    return PurePosixPath(_QUERY.sub("", source.source) if "://" in source.source else source.source).name


def _opened(root: Path, source: ModelSource) -> BinaryIO:
    try:
        if "://" not in source.source:
            return root.joinpath(source.source).open("rb")
        if source.source.startswith(("http://", "https://")):
            return cast(BinaryIO, urllib.request.urlopen(source.source, timeout=_TIMEOUT_SECONDS))
        import fsspec

        return cast(BinaryIO, fsspec.open(source.source, "rb").open())
    except ImportError as error:
        raise BuildError(
            f"model {source.name}: {error}; install it: pip install 'rayline[remote]' and its file system"
        ) from error
    except Exception as error:
        # fsspec's file systems raise whatever their own clients do.
        raise BuildError(f"model {source.name}: {source.source} cannot be opened: {type(error).__name__}: {error}") from error


def _chunks(given: BinaryIO, source: ModelSource) -> Iterator[bytes]:
    try:
        while data := given.read(_CHUNK):
            yield data
    except Exception as error:
        # As above: not only the system's own errors come from an address.
        raise BuildError(f"model {source.name}: {source.source} broke off: {type(error).__name__}: {error}; try again") from error
