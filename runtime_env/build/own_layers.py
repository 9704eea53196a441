"""Layers from the user's own files: the app, native libraries and programs, models; and Rayline's part for the actors."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, cast

import rayline
from rayline.app_spec import AppSpec, ModelSource
from rayline.errors import BlobCorrupt, BlobTruncated, BuildError
from runtime_env.build.bytecode import compile_tree
from runtime_env.build.interpreters import Interpreter
from runtime_env.build.lock import LOCK_FILE
from runtime_env.bundle import Model

MAX_APP_FILES: Final = 50_000
_CACHES: Final = frozenset({"__pycache__", "node_modules", "venv"})
_CHUNK: Final = 2**20
_TIMEOUT_SECONDS: Final = 60.0


def app_files(spec: AppSpec) -> list[PurePosixPath]:
    """The app's own files, sorted, by `env.files` and `env.exclude`.

    Hidden files, caches, models, wheels and native extras are never among them.
    """
    root = Path(spec.root)
    environment = spec.environment
    apart = {LOCK_FILE, *(source.source for source in spec.models), *environment.wheels, environment.conda}
    apart |= {*environment.libraries, *environment.binaries}
    elsewhere = [PurePosixPath(path) for path in apart if path]
    found: list[PurePosixPath] = []
    for path in _below(root, root):
        if any(path == other or other in path.parents for other in elsewhere):
            continue
        if any(_fits(path, pattern) for pattern in environment.files) and not any(
            _fits(path, one) for one in environment.exclude
        ):
            found.append(path)
            if len(found) > MAX_APP_FILES:
                raise BuildError(
                    f"{root}: more than {MAX_APP_FILES} files; narrow `env.files`, or give the app a folder of its own"
                )
    return sorted(found)


def copy_app(spec: AppSpec, interpreter: Interpreter | None, tree: Path) -> None:
    """Fill `tree` with `app/…`, compiled; `interpreter` is None for a conda environment, whose Python compiles when it loads."""
    root = Path(spec.root)
    for path in app_files(spec):
        target = tree / "app" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, target, follow_symlinks=False)
    (tree / "app").mkdir(exist_ok=True)
    if interpreter is not None:
        compile_tree(interpreter.executable, tree)


def copy_platform(interpreter: Interpreter, tree: Path) -> None:
    """Fill `tree` with the package `rayline`: the vocabulary that actors share with lanes."""
    site = tree / "lib" / f"python{interpreter.minor}" / "site-packages"
    shutil.copytree(Path(rayline.__path__[0]), site / "rayline", ignore=shutil.ignore_patterns("__pycache__"))
    compile_tree(interpreter.executable, tree)


def platform_identity() -> str:
    """The digest of the package `rayline` as it is installed here."""
    digest = hashlib.sha256()
    for path in sorted(Path(rayline.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def copy_native(spec: AppSpec, tree: Path) -> None:
    """Fill `tree` with `native/lib` and `native/bin`: the contents of folders, and single files by their names."""
    for folder, sources in (("lib", spec.environment.libraries), ("bin", spec.environment.binaries)):
        target = tree / "native" / folder
        target.mkdir(parents=True)
        for source in sources:
            path = Path(spec.root, source)
            if path.is_dir():
                shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(path, target / path.name)
    for program in (tree / "native" / "bin").rglob("*"):
        if program.is_file() and not program.is_symlink():
            program.chmod(0o755)


def native_identity(spec: AppSpec) -> list[Any]:
    """What the native layer is made from: paths, sizes and times of the files (their contents are read when one changed)."""
    environment = spec.environment
    return [
        [source, [_facts(path, Path(spec.root, source)) for path in _tree(Path(spec.root, source))]]
        for source in (*environment.libraries, "", *environment.binaries)
        if source
    ] + [[*environment.libraries], [*environment.binaries]]


def model_identity(spec: AppSpec, source: ModelSource) -> list[Any]:
    """What a model's layer is made from: its digest where it is declared, else the facts of its files."""
    if source.digest:
        return [source.name, PurePosixPath(source.source).name, source.digest]
    path = Path(spec.root, source.source)
    return [source.name, str(path), [_facts(one, path) for one in _tree(path)]]


def copy_model(spec: AppSpec, source: ModelSource, tree: Path) -> None:
    """Fill `tree` with `models/<name>/…`; raises BlobCorrupt or BlobTruncated where digest or size are not what is declared."""
    target = tree / "models" / source.name
    target.mkdir(parents=True)
    path = Path(spec.root, source.source)
    if "://" not in source.source and path.is_dir():
        if source.digest:
            raise BuildError(f"model {source.name}: {path} is a folder; `digest` is for a single file: drop it")
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
        return
    copied, digest = 0, hashlib.sha256()
    with _opened(spec, source) as given, (target / PurePosixPath(source.source).name).open("wb") as file:
        for data in _chunks(given, source):
            copied += len(data)
            if source.size_bytes is not None and copied > source.size_bytes:
                break
            digest.update(data)
            file.write(data)
    if source.size_bytes is not None and copied != source.size_bytes:
        raise BlobTruncated(f"model {source.name}: {source.source} has not the {source.size_bytes} bytes that are declared")
    if source.digest and f"sha256:{digest.hexdigest()}" != source.digest:
        raise BlobCorrupt(f"model {source.name}: {source.source} has sha256:{digest.hexdigest()}, declared is {source.digest}")


def model_entry(spec: AppSpec, source: ModelSource, layer_digest: str) -> Model:
    """How the bundle names a model: a file by its path, a folder by the folder; without a declared digest, its layer's."""
    local = Path(spec.root, source.source) if "://" not in source.source else None
    below = "" if local is not None and local.is_dir() else f"/{PurePosixPath(source.source).name}"
    size = sum(path.stat().st_size for path in _tree(local)) if local is not None else source.size_bytes
    return Model(source.name, f"models/{source.name}{below}", source.digest or layer_digest, size)


def _opened(spec: AppSpec, source: ModelSource) -> BinaryIO:
    try:
        if "://" not in source.source:
            return Path(spec.root, source.source).open("rb")
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
    except OSError as error:
        raise BuildError(f"model {source.name}: {source.source} broke off: {error}; try again") from error


def _below(folder: Path, root: Path) -> Iterator[PurePosixPath]:
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        if entry.name.startswith(".") or entry.name in _CACHES or entry.name.endswith(".pyc"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), root)
        else:
            yield PurePosixPath(Path(entry.path).relative_to(root).as_posix())


def _fits(path: PurePosixPath, pattern: str) -> bool:
    """As in .gitignore, roughly: `*` crosses folders, a pattern that names a folder means what is below it."""
    text = str(path)
    return fnmatch(text, pattern) or fnmatch(text, f"{pattern.rstrip('/')}/*")


def _tree(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if not one.is_dir()) if path.is_dir() else [path]


def _facts(path: Path, below: Path) -> list[Any]:
    status = path.lstat()
    return [str(path.relative_to(below)), status.st_size, status.st_mtime_ns]
