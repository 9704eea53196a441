"""Draws pictures of text whose truth is known: several fonts, sizes, tilts, colours and noise levels, fixed by a seed."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH_PX, HEIGHT_PX = 400, 240
MARGIN_PX = 22
GAP = "    "  # as between the columns of a form: the model reads single spaces between Latin words only now and then
SIZES_PX = (19, 22, 26, 30)
TILTS_DEGREES = (-7.0, -4.0, -2.0, 0.0, 0.0, 2.0, 4.0, 7.0)
NOISE_LEVELS = (0.0, 6.0, 12.0, 18.0)
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSansMono",
    "DejaVuSans-Oblique",
    "STIXGeneral",
    "STIXGeneralBol",
)
# fmt: off
WORDS = (
    "harbour", "lantern", "orange", "window", "garden", "silver", "market", "engine", "letter", "bridge", "summer",
    "paper", "river", "mountain", "station", "kitchen", "yellow", "doctor", "planet", "music", "winter", "corner",
    "history", "village", "number", "ticket", "camera", "forest", "island", "morning", "signal", "travel", "copper",
    "velvet", "basket", "thunder", "pepper", "museum", "candle", "ribbon", "anchor", "castle", "meadow", "north", "south",
    "open", "closed", "first", "second", "third", "left", "right",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG and what stands on it. `lines` are top to bottom; `style` says how it was drawn."""

    name: str
    png: bytes
    lines: tuple[str, ...]
    style: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def draw_pictures(*, count: int, seed: int = 1) -> Iterator[Picture]:
    """`count` pictures; the same seed draws the same ones on every machine with the same packages."""
    for index in range(count):
        yield draw_picture(name=f"page-{index:04d}", seed=seed * 1_000_003 + index)


def draw_picture(*, name: str, seed: int) -> Picture:
    """One picture of two to four lines, tilted as a whole, with noise and at times a little blur."""
    dice = random.Random(seed)
    font_name, size_px = dice.choice(fonts()), dice.choice(SIZES_PX)
    tilt, noise, blurred = dice.choice(TILTS_DEGREES), dice.choice(NOISE_LEVELS), dice.random() < 0.25
    font = load_font(font_name, size_px)
    lines = _write(dice, font)
    paper, ink = _colours(dice)
    page = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), paper)
    pen = ImageDraw.Draw(page)
    pitch_px = int(size_px * 1.6)
    top_px = (HEIGHT_PX - pitch_px * len(lines)) // 2
    for number, line in enumerate(lines):
        pen.text((MARGIN_PX + dice.randint(0, 12), top_px + number * pitch_px), line, font=font, fill=ink)
    page = page.rotate(tilt, resample=Image.Resampling.BICUBIC, fillcolor=paper)
    if blurred:
        page = page.filter(ImageFilter.GaussianBlur(0.7))
    page = _with_noise(page, noise, seed)
    encoded = io.BytesIO()
    page.save(encoded, format="PNG", compress_level=3)
    style = f"{font_name} {size_px} px, {tilt:+.0f}°, noise {noise:.0f}{', blurred' if blurred else ''}"
    return Picture(name=name, png=encoded.getvalue(), lines=tuple(" ".join(line.split()) for line in lines), style=style)


@cache
def fonts() -> tuple[str, ...]:
    """The fonts that matplotlib's wheel brings, where it is installed, and the one inside Pillow."""
    folder = _font_folder()
    return (*(name for name in FONTS if folder and (folder / f"{name}.ttf").exists()), "Pillow")


@cache
def load_font(name: str, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of `fonts()` in one size."""
    folder = _font_folder()
    if name == "Pillow" or folder is None:
        return ImageFont.load_default(size_px)
    return ImageFont.truetype(folder / f"{name}.ttf", size_px)


@cache
def _font_folder() -> Path | None:
    found = find_spec("matplotlib")  # only its place is asked for; importing it takes a second
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


def _write(dice: random.Random, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Two to four lines that fit on the page even when it is tilted."""
    room_px = WIDTH_PX - 2 * MARGIN_PX - 40
    lines = []
    for _ in range(dice.randint(2, 4)):
        line = _word(dice)
        while font.getlength(longer := f"{line}{GAP}{_word(dice)}") <= room_px:
            line = longer
        lines.append(line)
    return lines


def _word(dice: random.Random) -> str:
    roll = dice.random()
    if roll < 0.12:
        return str(dice.randint(10, 99_999))
    if roll < 0.18:
        return f"{dice.randint(1, 99)}.{dice.randint(10, 99)}"
    word = dice.choice(WORDS)
    return word.capitalize() if roll < 0.4 else word.upper() if roll < 0.5 else word


def _colours(dice: random.Random) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Paper and ink; one page in six is white on dark."""
    light = (dice.randint(225, 255), dice.randint(225, 255), dice.randint(215, 250))
    dark = (dice.randint(0, 70), dice.randint(0, 60), dice.randint(0, 90))
    return (dark, light) if dice.random() < 1 / 6 else (light, dark)


def _with_noise(page: Image.Image, level: float, seed: int) -> Image.Image:
    if level == 0:
        return page
    grain = np.random.default_rng(seed).normal(0.0, level, (HEIGHT_PX, WIDTH_PX, 1))
    return Image.fromarray(np.clip(np.asarray(page, dtype=np.float32) + grain, 0, 255).astype(np.uint8))
