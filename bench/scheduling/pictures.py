"""The table as one picture, SVG without any library: p99 over load and over the number of lanes, one line for each policy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final, TypeAlias

from bench.scheduling.tables import Row

Series: TypeAlias = Mapping[str, Mapping[float, float]]  # by policy: seconds by load or by lanes

WIDTH: Final = 860
PANEL_HEIGHT: Final = 400
LEFT: Final = 60
RIGHT: Final = 230
TOP: Final = 40
BOTTOM: Final = 50
LABEL_HEIGHT: Final = 15
COLOURS: Final = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#111111", "#ff7f0e", "#8c564b", "#17becf", "#bcbd22", "#7f7f7f")
TICKS: Final = (1, 2, 5, 10, 20, 50, 100)
LANES_LOAD: Final = 0.8


def draw(rows: Sequence[Row], path: Path) -> None:
    """p99 (logarithmic) of every policy: over load with one lane, and over lanes at load 0.8."""
    colours = dict(zip(dict.fromkeys(row.policy for row in rows), _colours(), strict=False))
    usual = [row for row in rows if row.question == "load"]
    several = [row for row in rows if row.load == LANES_LOAD and row.question in ("load", "several lanes")]
    shared = {row.policy for row in several if row.lanes > 1}
    panels = [("p99 in seconds over load: 60 nodes of 4-32 cores, one lane", _series(usual, "load"))]
    if shared:
        several = [row for row in several if row.policy in shared]
        panels.append((f"p99 in seconds over the number of lanes, at load {LANES_LOAD:g}", _series(several, "lanes")))
    height = PANEL_HEIGHT * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, (title, series) in enumerate(panels):
        parts += [f'<g transform="translate(0 {number * PANEL_HEIGHT})">', *_panel(title, series, colours), "</g>"]
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _colours() -> list[tuple[str, str]]:
    """Of the policies in their order: stroke and dashes."""
    return [(colour, "") for colour in COLOURS] + [(colour, ' stroke-dasharray="5 3"') for colour in COLOURS]


def _series(rows: Sequence[Row], over: str) -> Series:
    series: dict[str, dict[float, float]] = {}
    for row in rows:
        series.setdefault(row.policy, {})[getattr(row, over)] = row.p99_s
    return {policy: dict(sorted(points.items())) for policy, points in series.items()}


def _panel(title: str, series: Series, colours: Mapping[str, tuple[str, str]]) -> list[str]:
    places = sorted({place for points in series.values() for place in points})
    highest = math.log10(max(100.0, *(seconds for points in series.values() for seconds in points.values())))

    def x(place: float) -> float:
        """Places stand side by side, however far apart they are."""
        return LEFT + places.index(place) / max(1, len(places) - 1) * (WIDTH - LEFT - RIGHT)

    def y(seconds: float) -> float:
        return PANEL_HEIGHT - BOTTOM - max(0.0, math.log10(max(seconds, 1.0))) / highest * (PANEL_HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>']
    for tick in TICKS:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    foot = PANEL_HEIGHT - BOTTOM + 20
    parts += [f'<text x="{x(place):.1f}" y="{foot}" text-anchor="middle">{place:g}</text>' for place in places]
    label_at = -math.inf
    last = {policy: (max(points), points[max(points)]) for policy, points in series.items()}
    for policy in sorted(series, key=lambda policy: y(last[policy][1])):
        colour, dashes = colours[policy]
        width = 3 if policy == "headroom" else 1.5
        line = " ".join(f"{x(place):.1f},{y(seconds):.1f}" for place, seconds in series[policy].items())
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>')
        place, seconds = last[policy]
        parts.append(f'<circle cx="{x(place):.1f}" cy="{y(seconds):.1f}" r="2.5" fill="{colour}"/>')
        label_at = max(y(seconds), label_at + LABEL_HEIGHT)
        at = "" if place == places[-1] else f" at {place:g}"
        parts.append(
            f'<text x="{WIDTH - RIGHT + 10}" y="{label_at + 4:.1f}" fill="{colour}">{escape(policy)} {seconds:.1f} s{at}</text>'
        )
    return parts
