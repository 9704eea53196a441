"""Layers from the user's own files: the app, native libraries and programs; and Rayline's part for the actors."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

import rayline
from rayline.app_spec import AppSpec
from rayline.errors import BuildError
from runtime_env.build.bytecode import compile_tree
from runtime_env.build.interpreters import Interpreter
from runtime_env.build.lock import LOCK_FILE

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
        [source, [file_facts(path, Path(spec.root, source)) for path in tree_files(Path(spec.root, source))]]
        for source in (*environment.libraries, "", *environment.binaries)
        if source
    ] + [[*environment.libraries], [*environment.binaries]]


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


def tree_files(path: Path) -> list[Path]:
    """The files of a folder, sorted; a file is its own."""
    return sorted(one for one in path.rglob("*") if not one.is_dir()) if path.is_dir() else [path]


def file_facts(path: Path, below: Path) -> list[Any]:
    """What tells without reading it that a file is another than before."""
    status = path.lstat()
    return [str(path.relative_to(below)), status.st_size, status.st_mtime_ns]
