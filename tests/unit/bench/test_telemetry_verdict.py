"""What telemetry costs is judged from the steady part of rounds in which apps with and without it run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import new_traceparent
from bench.telemetry_cost import arm_environment, job_spans
from bench.telemetry_verdict import Arm, Mark, Round, Side, SteadyPart, judge
from ingest.tracing import start_job_span
from rayline.metrics.process import metrics_wanted
from rayline.telemetry import Tracing, open_tracing
from tests.unit.ingest.jobs import job


def a_round(ratio: float, *, cpu: float = 1.0, lost: int = 0) -> Round:
    return Round(off=Side(1000, 0.02, 0, 0, 0, 0), on=Side(1000 * ratio, 0.02 * cpu, lost, 0, 0, 100))


def test_the_cost_is_the_median_of_what_was_compared_in_the_same_seconds() -> None:
    good = judge([a_round(ratio, cpu=1.1) for ratio in (0.96, 0.7, 1.2)])
    assert good["cost_percent"] == 4.0
    assert good["ratios"] == [0.96, 0.7, 1.2]
    assert good["lane_cpu_percent_more"] == 10.0
    assert all(bar["met"] for bar in good["bars"])


def test_more_than_five_percent_and_any_lost_job_are_too_much() -> None:
    assert [bar["met"] for bar in judge([a_round(0.94)])["bars"]] == [False, True]
    assert [bar["met"] for bar in judge([a_round(1.0, lost=1)])["bars"]] == [True, False]


def test_only_the_part_in_which_both_are_warm_and_neither_is_done_is_judged() -> None:
    part = SteadyPart(1000)
    off, on = (0, 310, 400, 600, 900, 1000), (0, 200, 310, 500, 955, 1000)
    marks = [Mark(float(at), {Arm.OFF: off[at], Arm.ON: on[at]}) for at in range(6)]
    assert [mark.at for mark in marks if part.take(mark)] == [2, 4]
    assert (part.seconds, part.jobs(Arm.OFF), part.jobs(Arm.ON)) == (2.0, 500, 645)
    assert (SteadyPart(1000).seconds, SteadyPart(1000).jobs(Arm.ON)) == (0, 0)


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
