"""Numbers as people read them on a narrow column. What is not known is `–`, never 0."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

UNKNOWN: Final = "–"
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_FULL: Final = len(_BLOCKS) - 1


def count(value: float | None) -> str:
    """`812`, `4.2`, `12.3k`, `1.25M`."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def duration(ms: float | None) -> str:
    """`3.2 ms`, `480 ms`, `1.25 s`, `4 min`."""
    if ms is None:
        return UNKNOWN
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.2f} s" if ms < 100_000 else f"{ms / 60_000:.0f} min"


def span(seconds: float) -> str:
    """`12s`, `4m`, `3h`, `2d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0%}" if value >= 0.0995 or value == 0 else f"{value:.1%}"


def weight(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"


def clock(at_ms: int) -> str:
    """The time of day here."""
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))


def bar(value: float | None, width: int) -> str:
    """0 to 1 as a bar of so many characters."""
    eighths = 0 if value is None else round(min(1.0, max(0.0, value)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)


def columns(values: Sequence[float | None], height: int, highest: float) -> list[str]:
    """Values as columns of `height` lines, the top line first; what is not known is an empty column."""
    eighths = [0 if value is None or highest <= 0 else max(1, round(min(1.0, value / highest) * height * 8)) for value in values]
    return ["".join(_BLOCKS[min(_FULL, max(0, one - line * 8))] for one in eighths) for line in range(height - 1, -1, -1)]
