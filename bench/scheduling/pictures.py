"""The table as pictures: p99 by load, one line for each policy, as SVG without any library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from bench.scheduling.tables import Row

WIDTH: Final = 860
HEIGHT: Final = 420
LEFT: Final = 60
RIGHT: Final = 230
TOP: Final = 40
BOTTOM: Final = 50
COLOURS: Final = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#111111", "#ff7f0e", "#8c564b", "#17becf", "#bcbd22", "#7f7f7f")
TICKS: Final = (1, 2, 5, 10, 20, 50, 100)


def draw_load(rows: Sequence[Row], path: Path) -> None:
    """p99 (logarithmic) over load, for every policy of the question `load`."""
    rows = [row for row in rows if row.question == "load"]
    loads = sorted({row.load for row in rows})
    policies = list(dict.fromkeys(row.policy for row in rows))
    highest = math.log10(max(100.0, max(row.p99_s for row in rows)))

    def x(load: float) -> float:
        span = max(loads[-1] - loads[0], 1e-9)
        return LEFT + (load - loads[0]) / span * (WIDTH - LEFT - RIGHT)

    def y(seconds: float) -> float:
        return HEIGHT - BOTTOM - max(0.0, math.log10(max(seconds, 1.0))) / highest * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">p99 in seconds over load: 60 nodes of 4-32 cores, random neighbours</text>',
    ]
    for tick in TICKS:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    parts += [f'<text x="{x(load):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{load:g}</text>' for load in loads]
    label_at = -math.inf
    last = {row.policy: row.p99_s for row in sorted(rows, key=lambda row: row.load)}
    labels: dict[str, float] = {}
    for policy in sorted(policies, key=lambda policy: y(last[policy])):
        label_at = max(y(last[policy]), label_at + 15)
        labels[policy] = label_at
    for number, policy in enumerate(policies):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{x(row.load):.1f},{y(row.p99_s):.1f}" for row in sorted(rows, key=lambda row: row.load) if row.policy == policy
        )
        width = 3 if policy == "headroom" else 1.5
        dashes = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 10}" y="{labels[policy] + 4:.1f}" fill="{colour}">'
            f"{escape(policy)} {last[policy]:.1f} s</text>"
        )
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")
