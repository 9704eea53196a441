"""Hedges: late only against enough measurements, and to the farthest failure domain there is."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.reports import NodeReport, NodeState
from scheduler.hedging import LATE_FACTOR, LATE_FLOOR_SECONDS, MIN_SAMPLES, WINDOW_SAMPLES, ServiceTimes, other_domains
from scheduler.view import View


def measured(jobs: int, seconds: list[float]) -> ServiceTimes:
    times = ServiceTimes()
    for one in seconds:
        times.observe(jobs, one)
    return times


def test_before_enough_batches_were_measured_a_batch_is_late_at_half_its_time() -> None:
    times = measured(64, [1.0] * (MIN_SAMPLES - 1))
    assert times.late_after_seconds(64) == inf
    assert times.late_after_seconds(64, left_seconds=9.0) == 4.5
    times.observe(64, 1.0)
    assert times.late_after_seconds(64) == LATE_FACTOR * 1.0


@given(st.lists(st.floats(0.001, 100), min_size=MIN_SAMPLES, max_size=3 * WINDOW_SAMPLES))
def test_a_batch_is_late_only_beyond_the_slowest_hundredth(seconds: list[float]) -> None:
    late = measured(64, seconds).late_after_seconds(64)
    assert late >= LATE_FLOOR_SECONDS
    slower = sum(one * LATE_FACTOR > late for one in seconds[-WINDOW_SAMPLES:])
    assert slower <= 0.01 * min(len(seconds), WINDOW_SAMPLES) + 32


def test_a_full_batch_is_not_late_by_the_measure_of_small_ones() -> None:
    times = measured(1, [0.3] * MIN_SAMPLES)
    assert times.late_after_seconds(64) == inf
    for _ in range(MIN_SAMPLES):
        times.observe(64, 4.0)
    assert times.late_after_seconds(64) == 8.0
    assert times.late_after_seconds(1) == pytest.approx(0.6)


def test_old_measurements_are_forgotten() -> None:
    times = measured(8, [5.0] * WINDOW_SAMPLES + [0.5] * WINDOW_SAMPLES)
    assert (times.expected_seconds(8), times.late_after_seconds(8)) == (0.5, 1.0)


def test_a_size_that_was_never_measured_is_rather_expected_too_short() -> None:
    assert ServiceTimes().expected_seconds(10) == 0.0
    times = measured(64, [6.4])
    assert times.expected_seconds(128) == 6.4
    assert times.expected_seconds(1) == pytest.approx(0.1)


def view_of(*nodes: tuple[str, str, str | None]) -> View:
    view = View()
    view.apply([NodeReport(c, n, 1, 1, NodeState.READY, zone=zone) for c, n, zone in nodes], 0.0)
    return view


def test_a_hedge_goes_to_another_cluster_then_another_zone_then_another_node() -> None:
    view = view_of(("c1", "a", "z1"), ("c1", "b", "z2"), ("c2", "a", "z1"), ("c2", "b", "z2"))
    assert list(other_domains(view.nodes(), "c1/a")) == [
        frozenset({"c1/a", "c1/b"}),
        frozenset({"c1/a", "c2/a"}),
        frozenset({"c1/a"}),
    ]


def test_where_zones_are_unknown_they_are_not_guessed() -> None:
    view = view_of(("c1", "a", None), ("c1", "b", None))
    assert list(other_domains(view.nodes(), "c1/a")) == [frozenset({"c1/a", "c1/b"}), frozenset({"c1/a"})]
    assert list(other_domains(view.nodes(), "c9/gone")) == [frozenset({"c9/gone"}), frozenset({"c9/gone"})]
