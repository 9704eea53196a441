"""Figures and times as people read them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

NOTHING = "–"
_VERSION_CHARS = 12
_MOST_VERSIONS = 4


def count(value: float | None) -> str:
    """12 345 as `12.3 k`."""
    if value is None:
        return NOTHING
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, " k"), (1e9, 1e6, " M"), (math.inf, 1e9, " G")):
        if abs(value) < limit:
            scaled = value / divisor
            whole = abs(scaled) >= 100 or (not unit and float(value).is_integer())
            return f"{scaled:.0f}{unit}" if whole else f"{scaled:.1f}{unit}"
    return NOTHING


def milliseconds(value: float | None) -> str:
    """1 234 ms as `1.23 s`."""
    if value is None:
        return NOTHING
    if value >= 1000:
        return f"{value / 1000:.2f} s" if value < 100_000 else f"{value / 1000:.0f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def attainment(share: float | None) -> str:
    """A share as a percentage that never says 100 where one is missing."""
    if share is None:
        return NOTHING
    if share >= 1:
        return "100"
    return f"{math.floor(share * 100_000) / 1000:.3f}" if share >= 0.999 else f"{math.floor(share * 10_000) / 100:.2f}"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.1f} %" if share < 0.1 else f"{share * 100:.0f} %"


def versions(newest: str, shares: Sequence[tuple[str, float]]) -> str:
    """The newest version of an app where it alone answers; each that does, with its share of the answers, where others do."""
    if [version for version, _ in shares] in ([], [newest]):
        return newest[:_VERSION_CHARS]
    return ", ".join(f"{version[:_VERSION_CHARS]} {percent(share)}" for version, share in shares[:_MOST_VERSIONS])


def seconds_ago(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def clock(at_ms: int) -> str:
    """The time of day here."""
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))


def clock_ms(at_ms: int) -> str:
    """The time of day here, to the millisecond."""
    return f"{clock(at_ms)}.{at_ms % 1000:03d}"


def moment(at_ms: int) -> str:
    """Day and time here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def readable(raw: bytes | None, limit: int = 400) -> str:
    """Bytes from outside as one line: what is not text, or could turn text around, is shown by its code."""
    if raw is None:
        return NOTHING
    text = raw[:limit].decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return text + (f" … ({len(raw)} bytes)" if len(raw) > limit else "")
