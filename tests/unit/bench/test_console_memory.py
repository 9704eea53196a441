"""What the memory of a console over time is judged by."""

from __future__ import annotations

import pytest

from bench.console_memory import Sample, judge


def test_only_the_second_half_counts_since_windows_fill_in_the_first() -> None:
    filling = [Sample(at, 70 + at / 100, at / 50) for at in range(0, 1000, 10)]
    full = [Sample(at, 80.0, at / 50) for at in range(1000, 2000, 10)]
    verdict = judge([*filling, *full], pages=7)
    assert (verdict.slope_mb_per_hour, verdict.first_mb, verdict.last_mb) == (0.0, 70.0, 80.0)
    assert verdict.cpu_share == pytest.approx(0.02)


def test_a_leak_is_a_slope() -> None:
    verdict = judge([Sample(at, 70 + at / 3600 * 12, 0.0) for at in range(0, 3600, 10)], pages=1)
    assert verdict.slope_mb_per_hour == pytest.approx(12.0)
