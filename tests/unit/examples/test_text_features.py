"""The text example: one feature for each payload, errors in their places, nothing of Rayline in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from examples.text_features.feature import TextFeatures
from rayline.entrypoint import check_entrypoint
from rayline.manifest import load_manifest

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "text_features"


def test_its_manifest_is_in_order_and_its_code_knows_nothing_of_rayline() -> None:
    check_entrypoint(load_manifest(FOLDER))
    assert "import rayline" not in (FOLDER / "feature.py").read_text()
    assert "from rayline" not in (FOLDER / "feature.py").read_text()


def test_each_sample_job_has_its_feature_in_its_place() -> None:
    jobs = [json.loads(line) for line in (FOLDER / "jobs.jsonl").read_text().splitlines()]
    features = TextFeatures()(jobs)
    assert [feature["chars"] for feature in features] == [len(job["text"]) for job in jobs]


def test_a_payload_without_text_is_an_error_of_that_job_alone() -> None:
    good, bad, also_bad = TextFeatures()([{"text": "hello world"}, {"x": 1}, "text"])
    assert good["words"] == 2
    assert isinstance(bad, ValueError)
    assert isinstance(also_bad, ValueError)


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_a_text_without_trigrams_has_a_zero_vector(text: str) -> None:
    assert not TextFeatures().embed(text).any()


def test_a_vector_has_length_one_and_does_not_depend_on_case() -> None:
    features = TextFeatures(dimensions=32)
    assert np.linalg.norm(features.embed("Near-line")) == pytest.approx(1.0)
    assert (features.embed("Near-line") == features.embed("NEAR-LINE")).all()
