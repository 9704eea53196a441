"""A conda environment as a layer, where conda and conda-pack are: its prefixes are put right when it is activated."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rayline.errors import BuildError, CondaMissing, DiskFull
from runtime_env.build.index_settings import without_passwords
from runtime_env.durable import says_disk_full

TIMEOUT_SECONDS: Final = 3600.0


def find_conda(environment: Mapping[str, str] = os.environ) -> tuple[Path, Path]:
    """The programs `conda` and `conda-pack`; raises CondaMissing that says which is not here."""
    path = environment.get("PATH")
    conda = environment.get("CONDA_EXE") or shutil.which("conda", path=path) or shutil.which("mamba", path=path)
    if not conda:
        raise CondaMissing(
            "`env.conda` needs conda where the bundle is built, and there is none; install it, or use `env.requirements`"
        )
    pack = shutil.which("conda-pack", path=f"{Path(conda).parent}{os.pathsep}{path or ''}")
    if not pack:
        raise CondaMissing(
            "`env.conda` needs conda-pack beside conda: `conda install -n base conda-pack`, or use `env.requirements`"
        )
    return Path(conda), Path(pack)


def copy_conda(file: Path, tree: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Make the environment of a conda file and fill `tree` with it, packed: `bin/conda-unpack` ends it where it is activated."""
    conda, pack = find_conda(environment)
    prefix, packed = tree.parent / "prefix", tree.parent / "packed.tar"
    _run(conda, "env", "create", "--quiet", "--yes", "--prefix", prefix, "--file", file)
    _run(pack, "--quiet", "--prefix", prefix, "--output", packed, "--format", "tar", "--ignore-missing-files")
    # Our own archive, made a moment ago in a private folder: the gate is for what comes from elsewhere.
    with tarfile.open(packed) as archive:
        archive.extractall(tree, filter="tar")


def conda_python(tree: Path) -> str:
    """The Python version of a conda environment, by its metadata; raises BuildError where it has none."""
    found = sorted(tree.glob("conda-meta/python-3.*.json"))
    if not found:
        raise BuildError("the conda environment has no Python: add `python=3.11` to its dependencies")
    return found[0].name.split("-")[1]


def _run(*command: str | Path) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} was not done in {TIMEOUT_SECONDS:.0f} s") from error
    if done.returncode != 0:
        told = without_passwords((done.stderr or done.stdout).strip())[-2000:]
        if says_disk_full(told):
            raise DiskFull(f"{command[0]} found no room; make room or use another disk, then try again:\n{told}")
        raise BuildError(f"{' '.join(map(str, command[:3]))} failed:\n{told}")
