"""The virtual environment: made from the locked requirements, installed by uv, checked by hashes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.setup.machine import SetupFailed, require_packages, say

OLDEST_PYTHON = (3, 11)
PYTHONS = ("python3.12", "python3.11", "python3.13", "python3.14")


class Environment:
    """`.venv` of one clone.

    Owns: the folder `.venv` and the lock files in `requirements/`. Does not own: the machine's packages, or where Python
    packages come from (pip's and uv's ordinary settings say that; this project names no index).
    Life cycle: `ensure_tools` (venv, uv) → `install` (locked packages, Rayline itself) → `fetch_kafka` → `mark_done`.
    """

    def __init__(self, *, root: Path) -> None:
        self._root = root
        self._venv = root / ".venv"
        self._locks = root / "requirements"

    def ensure_tools(self) -> None:
        """Make `.venv` and put the locked uv into it."""
        if not (self._venv / "bin" / "python").exists():
            say("making .venv")
            self._run(self._base_python(), "-m", "venv", "--clear", str(self._venv))
        wanted = (self._locks / "uv.txt").read_text().split("==")[1].split()[0]
        if self._uv_version() != wanted:
            say(f"installing uv {wanted}")
            self._pip("install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r", str(self._locks / "uv.txt"))

    def install(self, *, with_java: bool) -> None:
        """Install exactly what is locked, then Rayline itself as an editable package."""
        locks = ["dev.txt", *(["java.txt"] if with_java else [])]
        say(f"installing the locked packages ({', '.join(locks)})")
        files = [str(self._locks / name) for name in locks]
        self._uv("sync", "--require-hashes", "--compile-bytecode", "--quiet", *files)
        self._uv("install", "--no-deps", "--no-build-isolation", "--quiet", "-e", str(self._root))

    def fetch_kafka(self) -> None:
        """Put Apache Kafka's jars where the broker looks for them."""
        say("fetching Apache Kafka")
        self._run(str(self._venv / "bin" / "python"), "-m", "deploy.broker.jars")

    def lock(self) -> None:
        """Resolve anew: every requirement with version and hashes, without addresses."""
        project = str(self._root / "pyproject.toml")
        extras = [argument for extra in ("otlp", "demo", "bench", "console") for argument in ("--extra", extra)]
        group = ["--group", f"{project}:dev"]
        self._compile("dev.txt", *extras, *group, project, str(self._locks / "tools.in"))
        self._compile("java.txt", "-c", str(self._locks / "dev.txt"), str(self._locks / "java.in"))
        self._compile("uv.txt", str(self._locks / "uv.in"))

    def mark_done(self) -> None:
        """Leave the stamp by which make knows that nothing is to do."""
        (self._venv / ".ready").touch()
        say("ready: .venv/bin/rayline")

    def _compile(self, lock: str, *sources: str) -> None:
        say(f"locking requirements/{lock}")
        options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade", "--quiet"]
        bare = ["--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate"]
        override = ["--override", str(self._locks / "overrides.txt")]
        self._uv("compile", *options, *bare, *override, "-o", str(self._locks / lock), *sources)

    def _base_python(self) -> str:
        """The Python that runs this, where it is new enough, else the first one found that is."""
        if sys.version_info >= OLDEST_PYTHON and sys.prefix == sys.base_prefix:
            chosen = sys.executable
        else:
            found = next((path for name in PYTHONS if (path := shutil.which(name))), None)
            if found is None:
                raise SetupFailed("no Python of version 3.11 or later found; install one, or say make PYTHON=/path/to/python3")
            chosen = found
        if subprocess.run([chosen, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
            require_packages({"ensurepip": "python3-venv"}, why="Debian keeps venv in a package of its own")
        return chosen

    def _uv_version(self) -> str | None:
        uv = self._venv / "bin" / "uv"
        if not uv.exists():
            return None
        return subprocess.run([uv, "--version"], capture_output=True, text=True, check=False).stdout.split()[1]

    def _pip(self, *arguments: str) -> None:
        self._run(str(self._venv / "bin" / "python"), "-m", "pip", *arguments)

    def _uv(self, command: str, *arguments: str) -> None:
        self._run(str(self._venv / "bin" / "uv"), "pip", command, *arguments)

    def _pip_settings(self) -> dict[str, str]:
        """pip's own settings in uv's words: uv does not read pip's configuration, and a machine may have only that."""
        python = self._venv / "bin" / "python"
        if not python.exists():
            return {}
        listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
        settings = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
        translated = {}
        for word, variable in (
            ("index-url", "UV_DEFAULT_INDEX"),
            ("extra-index-url", "UV_INDEX"),
            ("find-links", "UV_FIND_LINKS"),
            ("cert", "SSL_CERT_FILE"),
        ):
            values = [value.strip("'\"") for name, value in settings.items() if name.split(".", 1)[-1] == word]
            if values:
                translated[variable] = values[-1]
        return translated

    def _run(self, *command: str) -> None:
        uv = command[0].endswith("/uv")
        environment = {**(self._pip_settings() if uv else {}), **os.environ, "VIRTUAL_ENV": str(self._venv)}
        done = subprocess.run(command, cwd=self._root, env=environment, check=False)
        if done.returncode:
            raise SetupFailed(f"this failed (its own message stands above): {' '.join(command)}")
