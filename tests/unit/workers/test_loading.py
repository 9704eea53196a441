"""What an app's process finds in its variables once the app is loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec, ModelSource
from workers.loading import load_app

VARIABLES = {"PATH": "/opt/tool", "LD_LIBRARY_PATH": "/opt/lib", "RAYLINE_MODEL_NET": "/elsewhere", "COLOUR": "red"}


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process of a bundle starts (`runtime_env.process_environment`); what loading changes is put back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in (*VARIABLES, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, f"bundle's {name}")


def loaded(tmp_path: Path, bundle: str) -> dict[str, str]:
    module = f"feature_of_{'a_bundle' if bundle else 'no_bundle'}"
    (tmp_path / f"{module}.py").write_text("def f(job): return job\n")
    models = (ModelSource("net", "net.onnx"),)
    load_app(AppSpec("app", "1", str(tmp_path), f"{module}:f", env=VARIABLES, models=models, bundle=bundle))
    return {name: os.environ[name] for name in VARIABLES}


def test_in_an_environment_of_its_own_its_variables_take_no_folder_or_model_away(tmp_path: Path) -> None:
    kept = {name: f"bundle's {name}" for name in VARIABLES}
    assert loaded(tmp_path, "sha256:" + "0" * 64) == {**kept, "COLOUR": "red"}


def test_without_one_they_are_set_as_they_are(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == VARIABLES
