"""Which Pythons of this machine can be copied into a bundle: uv's own builds first, then pyenv's, then the one that runs this."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rayline.errors import InterpreterMissing

SUPPORTED: Final = ("3.10", "3.11", "3.12", "3.13")
_PROBE: Final = (
    "import json, sys, sysconfig, importlib.util as u; "
    "print(json.dumps([sys.implementation.name, sys.version.split()[0], sys.base_prefix, sysconfig.get_path('stdlib'), "
    "u.MAGIC_NUMBER.hex()]))"
)
_PROBE_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython that lies under one folder (`prefix`) and can be copied from there; `origin` is who put it there."""

    executable: Path
    version: str
    prefix: Path
    origin: str

    @property
    def minor(self) -> str:
        """`3.11`"""
        return ".".join(self.version.split(".")[:2])

    @property
    def library(self) -> Path:
        """The standard library."""
        return self.prefix / "lib" / f"python{self.minor}"


def find_interpreters(environment: Mapping[str, str] = os.environ) -> list[Interpreter]:
    """Every usable one, best first: by origin, then the newest patch release."""
    found: dict[Path, Interpreter] = {}
    for origin, executable in _candidates(environment):
        interpreter = _probe(executable, origin)
        if interpreter is not None:
            found.setdefault(interpreter.prefix.resolve(), interpreter)
    order = list(dict.fromkeys(origin for origin, _ in _candidates(environment)))
    return sorted(found.values(), key=lambda one: (order.index(one.origin), [-int(part) for part in one.version.split(".")]))


def choose_interpreter(wanted: str, environment: Mapping[str, str] = os.environ) -> Interpreter:
    """The best interpreter for `3.11`, `3.11.7`, or (empty) the version that runs this.

    Raises InterpreterMissing that says which are here and how to get one.
    """
    wanted = wanted or f"{sys.version_info.major}.{sys.version_info.minor}"
    found = find_interpreters(environment)
    for interpreter in found:
        if wanted in (interpreter.minor, interpreter.version):
            return interpreter
    here = ", ".join(f"{one.version} ({one.origin})" for one in found) or "none"
    raise InterpreterMissing(
        f"no Python {wanted} here that can be copied into a bundle; found: {here}. Get one by `uv python install {wanted}` or "
        f"`pyenv install {wanted}`; a Python of the system (below /usr) cannot be copied"
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    home = Path(environment.get("HOME", "/"))
    data = Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share")
    folders = {
        "uv": Path(environment.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python"),
        "pyenv": Path(environment.get("PYENV_ROOT") or home / ".pyenv") / "versions",
    }
    for origin, folder in folders.items():
        for path in sorted(folder.glob("*/bin/python3")):
            if any(f"-{minor}" in path.parts[-3] or path.parts[-3].startswith(minor) for minor in SUPPORTED):
                yield origin, path
    yield "running", Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _probe(executable: Path, origin: str) -> Interpreter | None:
    """The interpreter behind an executable; None where it does not run, is another kind, or belongs to the system."""
    try:
        told = subprocess.run([executable, "-I", "-c", _PROBE], capture_output=True, timeout=_PROBE_SECONDS, check=True).stdout
        kind, version, prefix, library, _ = json.loads(told)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    minor = ".".join(version.split(".")[:2])
    own = Path(prefix) / "lib" / f"python{minor}"
    usable = kind == "cpython" and minor in SUPPORTED and prefix != "/usr" and Path(library) == own
    return Interpreter(Path(prefix) / "bin" / f"python{minor}", version, Path(prefix), origin) if usable else None
