"""A picture of some pages with what was read under each, for people to judge with their own eyes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from deploy.demo.accuracy import character_accuracy

COLUMNS: Final = 3
CELL_WIDTH_PX: Final = 420
PAGE_HEIGHT_PX: Final = 252
CAPTION_LINE_PX: Final = 19
CELL_HEIGHT_PX: Final = PAGE_HEIGHT_PX + 6 * CAPTION_LINE_PX + 22
MARGIN_PX: Final = 24
HEADER_PX: Final = 64
BACKGROUND, CARD, INK, GREY = "#eef1f5", "#ffffff", "#16202c", "#6b7785"
GOOD, WRONG, BOX = "#1b7f4d", "#b3261e", "#1d6fd1"


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page, its truth and the feature that came back (`{"text", "lines"}`); `where` says which pod read it, and how fast."""

    png: bytes
    truth: str
    feature: dict[str, Any]
    style: str
    where: str

    @property
    def accuracy(self) -> float:
        return character_accuracy([(self.truth, self.feature.get("text", ""))])


def draw_contact_sheet(pages: Sequence[ReadPage], *, title: str, subtitle: str) -> Image.Image:
    """Pages in rows of three: the picture with the boxes that were found, the text as read, the accuracy."""
    rows = -(-len(pages) // COLUMNS)
    width = MARGIN_PX + COLUMNS * (CELL_WIDTH_PX + MARGIN_PX)
    sheet = Image.new("RGB", (width, HEADER_PX + MARGIN_PX + rows * (CELL_HEIGHT_PX + MARGIN_PX)), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, 18), title, font=_font(26), fill=INK)
    pen.text((MARGIN_PX, 52), subtitle, font=_font(15), fill=GREY)
    for number, page in enumerate(pages):
        left = MARGIN_PX + (number % COLUMNS) * (CELL_WIDTH_PX + MARGIN_PX)
        top = HEADER_PX + MARGIN_PX + (number // COLUMNS) * (CELL_HEIGHT_PX + MARGIN_PX)
        _draw_cell(sheet, page, left, top)
    return sheet


def save_contact_sheet(path: Path, pages: Sequence[ReadPage], *, title: str, subtitle: str) -> None:
    """Write it as a PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet(pages, title=title, subtitle=subtitle).save(path, optimize=True)


def _draw_cell(sheet: Image.Image, page: ReadPage, left: int, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.rounded_rectangle((left, top, left + CELL_WIDTH_PX, top + CELL_HEIGHT_PX), radius=8, fill=CARD, outline="#d5dbe3")
    picture = Image.open(io.BytesIO(page.png)).convert("RGB")
    marks = ImageDraw.Draw(picture)
    for line in page.feature.get("lines", []):
        marks.polygon([tuple(corner) for corner in line["box"]], outline=BOX)
    picture.thumbnail((CELL_WIDTH_PX - 20, PAGE_HEIGHT_PX - 10))
    sheet.paste(picture, (left + (CELL_WIDTH_PX - picture.width) // 2, top + 10))
    read = page.feature.get("text", "")
    right_lines = set(page.truth.split("\n"))
    y = top + PAGE_HEIGHT_PX + 6
    for text in read.split("\n")[:4] or ["(nothing read)"]:
        pen.text((left + 14, y), text, font=_font(16), fill=GOOD if text in right_lines else WRONG)
        y += CAPTION_LINE_PX
    y = top + CELL_HEIGHT_PX - 2 * CAPTION_LINE_PX - 4
    pen.text((left + 14, y), f"{page.accuracy:.1%} of the characters right · {page.where}", font=_font(13), fill=INK)
    pen.text((left + 14, y + CAPTION_LINE_PX), page.style, font=_font(13), fill=GREY)


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
