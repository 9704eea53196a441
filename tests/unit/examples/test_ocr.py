"""The OCR example: pictures are what their seed says, text is put in order whatever the tilt, and the model reads them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from deploy.demo.accuracy import character_accuracy
from deploy.demo.journey import APP_FOLDER
from examples.ocr import pictures
from examples.ocr.pictures import draw_picture, draw_pictures, fonts
from rayline.manifest import load_manifest

pytest.importorskip("rapidocr_onnxruntime")

from examples.ocr.feature import TextReader, reading_order


def test_the_same_seed_draws_the_same_pictures_and_another_seed_others() -> None:
    first, again, other = (list(draw_pictures(count=3, seed=seed)) for seed in (5, 5, 6))
    assert first == again
    assert all(a.png != b.png for a, b in zip(first, other, strict=True))


def test_pictures_differ_in_font_size_tilt_and_noise() -> None:
    styles = [picture.style for picture in draw_pictures(count=60, seed=1)]
    names, tilts, noises = (
        {style.split(" ")[0] for style in styles},
        {style.split(", ")[1] for style in styles},
        {style.split(", ")[2] for style in styles},
    )
    assert names == set(fonts())
    assert len(tilts) >= 6
    assert len(noises) == 4


def test_the_font_inside_pillow_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_font_folder", lambda: None)
    fonts.cache_clear()
    try:
        assert fonts() == ("Pillow",)
        assert "Pillow" in draw_picture(name="x", seed=1).style
    finally:
        fonts.cache_clear()


@pytest.mark.parametrize("tilt_degrees", [-8.0, 0.0, 8.0])
def test_rows_are_read_from_top_to_bottom_and_left_to_right_at_any_tilt(tilt_degrees: float) -> None:
    turn = math.radians(tilt_degrees)

    def box(x: float, y: float) -> list[list[float]]:
        corners = [(x, y), (x + 80, y), (x + 80, y + 20), (x, y + 20)]
        return [[a * math.cos(turn) - b * math.sin(turn), a * math.sin(turn) + b * math.cos(turn)] for a, b in corners]

    found = [(box(x, y), f"{row}{column}", 0.9) for row, y in enumerate((20, 55, 90)) for column, x in enumerate((10, 150, 290))]
    rows = reading_order(found[::-1])
    assert [[text for _, text, _ in row] for row in rows] == [["00", "01", "02"], ["10", "11", "12"], ["20", "21", "22"]]


def test_nothing_found_is_no_text() -> None:
    assert reading_order([]) == []


def test_the_model_reads_what_was_drawn() -> None:
    reader = TextReader()
    drawn = list(draw_pictures(count=8, seed=2))
    features = [reader({"image": picture.png}) for picture in drawn]
    assert character_accuracy([(p.text, f["text"]) for p, f in zip(drawn, features, strict=True)]) >= 0.95
    assert all(len(line["box"]) == 4 and 0.5 <= line["score"] <= 1 for feature in features for line in feature["lines"])


def test_bytes_that_are_no_picture_are_the_jobs_error() -> None:
    with pytest.raises(ValueError, match="not a picture"):
        TextReader()({"image": b"text"})


def test_the_feature_knows_nothing_of_the_platform() -> None:
    source = (APP_FOLDER / "feature.py").read_text()
    assert "rayline" not in source


def test_the_manifest_is_valid_and_names_what_exists() -> None:
    spec = load_manifest(APP_FOLDER)
    assert spec.entrypoint == "feature:TextReader"
    assert Path(spec.root) == APP_FOLDER


def test_a_picture_fits_into_a_job() -> None:
    largest = max(len(draw_picture(name="x", seed=seed).png) for seed in range(20))
    assert largest < load_manifest(APP_FOLDER).limits.max_job_bytes / 2
