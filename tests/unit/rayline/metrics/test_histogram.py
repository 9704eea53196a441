"""A histogram counts each value once, in the bucket whose bounds hold it, however many come at once."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.metrics import Histogram

BOUNDS = (0.1, 1.0, 10.0)


@given(st.lists(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100)), max_size=40), max_size=5))
def test_many_at_once_are_counted_as_one_by_one(chunks: list[list[float]]) -> None:
    histogram = Histogram(BOUNDS)
    for chunk in chunks:
        histogram.add_many(chunk)
    values = [value for chunk in chunks for value in chunk]
    expected = [0] * (len(BOUNDS) + 1)
    for value in values:
        expected[bisect_left(BOUNDS, value)] += 1
    snapshot = histogram.snapshot()
    assert list(snapshot.counts) == expected
    assert snapshot.total == pytest.approx(sum(values))


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    histogram = Histogram(BOUNDS)
    histogram.add(1.0, 3)
    assert histogram.snapshot().counts == (0, 3, 0, 0)


def test_a_snapshot_does_not_change_with_what_comes_later() -> None:
    histogram = Histogram(BOUNDS)
    before = histogram.snapshot()
    histogram.add(5.0)
    assert before.count == 0


def test_a_quantile_lies_in_the_bucket_that_holds_it() -> None:
    histogram = Histogram(BOUNDS)
    histogram.add(0.5, 99)
    histogram.add(5.0)
    snapshot = histogram.snapshot()
    assert snapshot.quantile(0.5) == pytest.approx(0.1 + 0.9 * 50 / 99)
    assert 1.0 < (snapshot.quantile(0.999) or 0) <= 10.0
    assert Histogram(BOUNDS).snapshot().quantile(0.5) is None
