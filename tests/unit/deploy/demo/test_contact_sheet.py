"""The contact sheet: every page is on it, and what was read wrong is red."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from deploy.demo.contact_sheet import WRONG, ReadPage, draw_contact_sheet, save_contact_sheet


def page(truth: str, read: str) -> ReadPage:
    png = io.BytesIO()
    Image.new("RGB", (400, 240), "white").save(png, format="PNG")
    feature = {"text": read, "lines": [{"text": read, "box": [[10, 10], [90, 10], [90, 30], [10, 30]], "score": 0.9}]}
    return ReadPage(png=png.getvalue(), truth=truth, feature=feature, style="DejaVuSans", where="c1-pod-1, 0.50 s")


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.getcolors(maxcolors=1 << 24) or []}  # type: ignore[misc]


def test_a_wrong_line_is_red_and_a_right_one_is_not() -> None:
    red = tuple(bytes.fromhex(WRONG[1:]))
    assert red in colours(draw_contact_sheet([page("truth", "trvth")], title="t", subtitle="s"))
    assert red not in colours(draw_contact_sheet([page("truth", "truth")], title="t", subtitle="s"))


def test_pages_stand_in_rows_of_three(tmp_path: Path) -> None:
    sheets = [draw_contact_sheet([page("a", "a")] * count, title="t", subtitle="s") for count in (3, 4)]
    assert sheets[0].width == sheets[1].width
    assert sheets[1].height > sheets[0].height
    save_contact_sheet(tmp_path / "out" / "sheet.png", [page("a", "a")], title="t", subtitle="s")
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 1000


def test_accuracy_of_a_page() -> None:
    assert page("abcd", "abc").accuracy == 0.75
