"""conda by stand-ins: what is missing is named, what it says is told without passwords, a full disk is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayline.errors import BuildError, CondaMissing, DiskFull
from runtime_env.build.conda_layer import conda_python, copy_conda, find_conda


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def made(tmp_path: Path, conda: str) -> None:
    """An environment by a conda that does this."""
    program(tmp_path / "bin" / "conda-pack", "exit 0")
    tree = tmp_path / "scratch" / "tree"
    tree.mkdir(parents=True)
    copy_conda(
        tmp_path / "environment.yml",
        tree,
        {"PATH": str(tmp_path / "bin"), "CONDA_EXE": str(program(tmp_path / "bin" / "conda", conda))},
    )


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CondaMissing, match="needs conda where the bundle is built"):
        find_conda({"PATH": str(tmp_path)})
    conda = program(tmp_path / "conda", "exit 0")
    with pytest.raises(CondaMissing, match="conda install -n base conda-pack"):
        find_conda({"PATH": str(tmp_path)})
    pack = program(tmp_path / "conda-pack", "exit 0")
    assert find_conda({"PATH": str(tmp_path)}) == (conda, pack)


def test_what_conda_says_is_told_without_passwords(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"env create failed:\nno channel https://host/c") as caught:
        made(tmp_path, "echo 'no channel https://me:hunter2@host/c' >&2; exit 1")
    assert "hunter2" not in str(caught.value)


def test_a_disk_that_is_full_for_conda_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="make room"):
        made(tmp_path, "echo 'NoSpaceLeftError: No space left on devices.' >&2; exit 1")


def test_an_environment_without_python_is_refused_and_one_with_it_tells_its_version(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    with pytest.raises(BuildError, match="add `python="):
        conda_python(tmp_path)
    (tmp_path / "conda-meta" / "python-3.11.9-h1.json").touch()
    assert conda_python(tmp_path) == "3.11.9"
