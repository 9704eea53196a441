"""What telemetry costs is judged from the CPU time of apps with and without it that run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import new_traceparent
from bench.telemetry_cost import arm_environment, job_spans
from bench.telemetry_verdict import Arm, Round, Side, judge
from ingest.tracing import start_job_span
from rayline.metrics.process import metrics_wanted
from rayline.telemetry import Tracing, open_tracing
from tests.unit.ingest.jobs import job


def a_round(with_telemetry: float, *, lost: int = 0) -> Round:
    return Round(off=Side(0.02, 0, 0, 0, 0), on=Side(0.02 * with_telemetry, lost, 0, 0, 100))


def test_the_cost_is_the_median_of_what_was_compared_in_the_same_seconds() -> None:
    good = judge([a_round(more) for more in (1.25, 1.04, 0.9)])
    assert good["costs_percent"] == [20.0, 3.85, -11.11]
    assert good["cost_percent"] == 3.85
    assert all(bar["met"] for bar in good["bars"])


def test_more_than_five_percent_and_any_lost_job_are_too_much() -> None:
    assert [bar["met"] for bar in judge([a_round(1.06)])["bars"]] == [False, True]
    assert [bar["met"] for bar in judge([a_round(1.0, lost=1)])["bars"]] == [True, False]


def test_each_job_begins_a_sampled_trace_of_which_one_in_a_hundred_is_taken() -> None:
    tracing = Tracing()
    assert tracing.start("x", new_traceparent()) is not None
    tracing.set_sampling(0.01)
    taken = sum(tracing.start("x", new_traceparent()) is not None for _ in range(5_000))
    assert 10 < taken < 120


def test_without_telemetry_nothing_is_counted_or_traced_and_with_it_spans_are_found(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    off = arm_environment(Arm.OFF, file)
    assert not metrics_wanted(off)
    assert open_tracing("lane", off) is None
    on = arm_environment(Arm.ON, file)
    assert metrics_wanted(on)
    tracing = open_tracing("lane", on)
    assert tracing is not None
    assert job_spans(file, "app") == 0
    for offset in range(3):
        span = start_job_span(tracing, job(offset, headers=(("traceparent", new_traceparent()),)), app="app", lane="0")
        assert span is not None
        span.span.end()
    other = tracing.start("rayline.batch", new_traceparent())
    assert other is not None
    other.end()
    tracing.close()
    assert job_spans(file, "app") == 3
    assert job_spans(file, "another") == 0


@pytest.mark.parametrize("number", range(3))
def test_a_traceparent_is_of_the_w3c_form(number: int) -> None:
    version, trace, span, flags = new_traceparent().split(b"-")
    assert (version, len(trace), len(span), flags) == (b"00", 32, 16, b"01"), number
