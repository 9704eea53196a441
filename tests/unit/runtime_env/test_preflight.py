"""An app that cannot be loaded is refused before anything runs, with the user's own traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayline.app_spec import AppSpec, Limits
from rayline.errors import ManifestError
from runtime_env.preflight import preflight


def app(root: Path, source: str, **fields: Any) -> AppSpec:
    (root / "feature.py").write_text(source)
    given = {"name": "app", "version": "v1", "entrypoint": "feature:feature", **fields}
    return AppSpec(root=str(root), **given)


def test_an_app_that_loads_passes(tmp_path: Path) -> None:
    preflight(app(tmp_path, "import rayline.codec\ndef feature(payload): return payload\n"))


def test_the_users_own_traceback_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"feature\.py(.|\n)*ModuleNotFoundError: No module named 'nowhere'"):
        preflight(app(tmp_path, "import nowhere\n"))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("", "has no attribute 'feature'"),
        ("feature = 3", "not a function or class"),
        ("import sys; sys.exit(4)", "exit code 4"),
        ("import os; os._exit(5)", "exit code 5"),
        ("class feature:\n    def __init__(self, *, size): ...", "unexpected keyword argument|missing a required"),
    ],
    ids=["missing", "no callable", "exits", "exits hard", "constructor"],
)
def test_what_cannot_be_called_is_refused(tmp_path: Path, source: str, match: str) -> None:
    with pytest.raises(ManifestError, match=match):
        preflight(app(tmp_path, source, constructor={"sise": 3}))


def test_an_import_that_hangs_is_refused_in_time(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="startup_seconds"):
        preflight(app(tmp_path, "import time; time.sleep(60)", limits=Limits(startup_seconds=0.5)))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        preflight(AppSpec(name="app", version="v1", root=str(tmp_path / "gone"), entrypoint="feature:feature"))


@pytest.mark.parametrize("package", ["workers", "scheduler", "ingest", "deploy", "runtime_env"])
def test_packages_of_ours_are_not_there_and_the_users_are(tmp_path: Path, package: str) -> None:
    with pytest.raises(ManifestError, match="ModuleNotFoundError"):
        preflight(app(tmp_path, f"import {package}\ndef feature(payload): ...\n"))
    (tmp_path / package).mkdir()
    (tmp_path / package / "own.py").write_text("mine = True\n")
    preflight(app(tmp_path, f"from {package}.own import mine\ndef feature(payload): ...\n"))
