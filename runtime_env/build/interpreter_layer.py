"""The interpreter as a layer: the parts of an installation that run apps, independent of where it lay."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from runtime_env.build.bytecode import compile_tree
from runtime_env.build.interpreters import Interpreter
from runtime_env.build.relocation import files_below, relocate_binaries, relocate_scripts, replace_file, require_relocatable
from runtime_env.bundle import sha256

# Test suites, editors and static libraries: two thirds of an installation, and no app needs them. Packages come as layers.
_LEFT_OUT: Final = frozenset(
    {"__pycache__", "test", "tests", "idlelib", "turtledemo", "ensurepip", "site-packages", "EXTERNALLY-MANAGED", "dist-packages"}
)
_PREFIX_WORD: Final = "@rayline-prefix@"
_SYSCONFIG_TAIL: Final = f"""
import sys
build_time_vars = {{
    name: value.replace({_PREFIX_WORD!r}, sys.base_prefix) if isinstance(value, str) else value
    for name, value in build_time_vars.items()
}}
"""


def identity(interpreter: Interpreter) -> dict[str, Any]:
    """What tells one installation from another: version, and the contents of its program, library and build settings."""
    parts = [interpreter.executable, *sorted(interpreter.prefix.glob(f"lib/libpython{interpreter.minor}*.so.1.0"))]
    parts += sorted(interpreter.library.glob("_sysconfigdata*.py"))
    return {"version": interpreter.version, "parts": [sha256(part.read_bytes()) for part in parts]}


def copy_interpreter(interpreter: Interpreter, tree: Path) -> None:
    """Fill `tree` with `bin`, `lib` and `include`; raises NotRelocatable when a file still names the installation's folder."""
    prefix, minor = interpreter.prefix, interpreter.minor
    (tree / "bin").mkdir()
    (tree / "lib").mkdir()
    shutil.copy2(prefix / "bin" / f"python{minor}", tree / "bin" / f"python{minor}")
    for name in ("python", "python3"):
        (tree / "bin" / name).symlink_to(f"python{minor}")
    for library in sorted(prefix.glob(f"lib/libpython{minor}*.so*")):
        shutil.copy2(library, tree / "lib" / library.name, follow_symlinks=False)
    shutil.copytree(interpreter.library, tree / "lib" / f"python{minor}", symlinks=True, ignore=_ignored)
    (tree / "lib" / f"python{minor}" / "site-packages").mkdir()
    headers = prefix / "include" / f"python{minor}"
    if headers.is_dir():
        shutil.copytree(headers, tree / "include" / f"python{minor}", symlinks=True)
    relocate_scripts(tree / "bin")
    relocate_binaries(tree, prefix)
    _relocate_texts(tree, prefix)
    compile_tree(interpreter.executable, tree)
    require_relocatable(tree, [prefix], f"Python {interpreter.version}")


def _ignored(_: str, names: Iterable[str]) -> set[str]:
    return {name for name in names if name in _LEFT_OUT or name.endswith((".a", ".pyc"))}


def _relocate_texts(tree: Path, prefix: Path) -> None:
    """Build settings name the installation's folder: Python's own are filled in when they are read, the rest is a word."""
    for path in files_below(tree / "lib"):
        data = path.read_bytes()
        if str(prefix).encode() not in data:
            continue
        text = data.replace(str(prefix).encode(), _PREFIX_WORD.encode())
        tail = _SYSCONFIG_TAIL.encode() if path.name.startswith("_sysconfigdata") else b""
        replace_file(path, text + tail)
