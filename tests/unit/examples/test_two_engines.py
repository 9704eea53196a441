"""One model on two engines, changed by one line of the manifest: the same code, and outputs within tolerance."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayline.engines import Engine
from rayline.entrypoint import check_entrypoint
from rayline.manifest import load_manifest

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "two_engines"
LINE = "engine: onnxruntime"
JOBS = [{"values": row.tolist()} for row in np.random.default_rng(1).standard_normal((64, 8))]


def answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """As a node without cards would have the app of this folder answer."""
    spec = load_manifest(folder)
    check_entrypoint(spec)
    chosen = Engine(spec.environment.engine, spec.environment.providers).choose(())
    assert chosen is not None
    for name, value in chosen.variables().items():
        monkeypatch.setenv(name, value)
    (model,) = spec.models
    monkeypatch.setenv("RAYLINE_MODEL_SCORER", str(folder / model.source))
    monkeypatch.syspath_prepend(str(folder))
    for module in ("feature", "numpy_engine"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    import feature  # type: ignore[import-not-found]

    found: list[dict[str, Any]] = feature.Scorer()(JOBS)
    return found


def test_one_changed_line_changes_the_engine_and_not_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answers(FOLDER, monkeypatch)
    other = shutil.copytree(FOLDER, tmp_path / "other")
    manifest = (other / "app.yaml").read_text()
    assert manifest.count(LINE) == 1
    (other / "app.yaml").write_text(manifest.replace(LINE, "engine: numpy_engine"))
    second = answers(other, monkeypatch)
    assert {one["engine"] for one in first} == {"onnxruntime"}
    assert {one["engine"] for one in second} == {"numpy_engine"}
    scores = [[one["scores"] for one in found] for found in (first, second)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5, atol=1e-6)
    assert np.std(scores[0]) > 0.05, "scores that are all alike would agree whatever computed them"


def test_its_code_knows_nothing_of_rayline() -> None:
    for path in FOLDER.glob("*.py"):
        assert "import rayline" not in path.read_text()
        assert "from rayline" not in path.read_text()
