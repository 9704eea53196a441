"""Windows and points of results under virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.tally import percentile
from deploy.observation.latency import SPAN_SECONDS, Histogram, ResultMeter

NOW = 1_000_000_000_000


def fill(meter: ResultMeter, at_ms: int, *latencies: float, outcome: str = "ok", missed: bool = False) -> None:
    for latency in latencies:
        meter.take(at_ms=at_ms, outcome=outcome, latency_ms=latency, missed=missed, now_ms=max(NOW, at_ms))


@given(st.lists(st.floats(min_value=0.1, max_value=1e6), min_size=1, max_size=200), st.floats(min_value=0.01, max_value=1))
def test_a_percentile_is_at_most_three_percent_above_the_exact_one_and_never_below(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    found, exact = histogram.percentile(share), percentile(values, share)
    assert found is not None
    assert exact - 0.006 <= found <= exact * 1.031 + 0.006


def test_nothing_has_no_percentile_rather_than_zero() -> None:
    window = ResultMeter().window(10, NOW)
    assert (window.results, window.p50_ms, window.p99_ms, window.max_ms) == (0, None, None, None)


def test_a_window_holds_its_own_seconds_and_no_others() -> None:
    meter = ResultMeter()
    fill(meter, NOW - 1_000, 5.0)
    fill(meter, NOW - 10_000, 7.0, outcome="error")
    fill(meter, NOW - 11_000, 9.0)
    fill(meter, NOW, 1.0)
    window = meter.window(10, NOW)
    assert (window.results, window.outcomes, window.max_ms) == (2, {"ok": 1, "error": 1}, 7.0)
    assert meter.window(60, NOW).results == 3


def test_what_was_skipped_scales_the_counts_and_is_told() -> None:
    meter = ResultMeter()
    fill(meter, NOW - 1_000, *[5.0] * 90)
    fill(meter, NOW - 1_000, *[5.0] * 10, outcome="deadline_exceeded", missed=True)
    meter.skip(900, NOW - 1_000)
    window = meter.window(10, NOW)
    assert (window.results, window.sampled, window.exact) == (1000, 100, False)
    assert window.outcomes == {"ok": 900, "deadline_exceeded": 100}
    assert window.misses == 100


def test_what_was_skipped_over_a_minute_is_spread_over_it() -> None:
    meter = ResultMeter()
    meter.skip(601, NOW, 60)
    assert meter.window(60, NOW).results in (590, 591)
    assert meter.window(10, NOW).results in (100, 101)


def test_points_have_no_gaps_and_survive_the_fine_slices() -> None:
    meter = ResultMeter()
    fill(meter, NOW, 5.0, 50.0)
    later = NOW + 120_000
    meter.forget(later)
    points = meter.points(300, later)
    assert [point.second for point in points] == list(range(later // 1000 - 300, later // 1000))
    (point,) = [point for point in points if point.results]
    assert (point.second, point.results, point.max_ms) == (NOW // 1000, 2, 50.0)


def test_memory_does_not_grow_with_time() -> None:
    meter = ResultMeter()
    sizes = []
    for second in range(3 * SPAN_SECONDS):
        at_ms = NOW + second * 1000
        meter.take(at_ms=at_ms, outcome="ok", latency_ms=5.0, missed=False, now_ms=at_ms)
        meter.forget(at_ms)
        sizes.append(len(meter._fine) + len(meter._coarse) + len(meter._points))
    assert max(sizes[SPAN_SECONDS + 100 :]) == max(sizes[: SPAN_SECONDS + 100]) < 1_100


def test_a_result_older_than_the_span_and_one_from_the_future_break_nothing() -> None:
    meter = ResultMeter()
    fill(meter, NOW - 2_000_000, 5.0)
    meter.take(at_ms=NOW + 60_000, outcome="ok", latency_ms=5.0, missed=False, now_ms=NOW)
    assert meter.window(SPAN_SECONDS, NOW).results == 1
