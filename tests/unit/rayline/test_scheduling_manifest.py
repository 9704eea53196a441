"""`scheduling` in app.yaml: read, carried to the lanes, and refused where it makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayline.app_spec import AppSpec, Scheduling, SchedulingPolicy
from rayline.errors import ManifestError
from rayline.manifest import load_manifest


def spec_of(folder: Path, scheduling: str) -> AppSpec:
    (folder / "app.yaml").write_text(f"name: a\nentrypoint: f:f\n{scheduling}")
    return load_manifest(folder)


def test_what_is_written_reaches_the_lanes(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "scheduling: {policy: wechat, interval_seconds: 1.5, cards: {A10: 1.0, L40: 2.5}}\n")
    assert AppSpec.from_dict(spec.as_dict()).scheduling == Scheduling(SchedulingPolicy.WECHAT, 1.5, {"A10": 1.0, "L40": 2.5})


def test_a_spec_from_before_there_was_a_choice_gets_the_default(tmp_path: Path) -> None:
    data = spec_of(tmp_path, "").as_dict()
    del data["scheduling"]
    assert AppSpec.from_dict(data).scheduling == Scheduling()


@pytest.mark.parametrize("wrong", ["policy: fastest", "interval_seconds: 0.0", "cards: {A10: 0.0}"])
def test_nonsense_names_its_line(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ManifestError, match=r"app\.yaml:3"):
        spec_of(tmp_path, f"scheduling: {{{wrong}}}\n")
