"""What telemetry costs is judged from the steady part of interleaved rounds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from bench.load import new_traceparent
from bench.telemetry_cost import arm_environment, job_spans
from bench.telemetry_verdict import Arm, Mark, Round, SteadyPart, judge, order
from ingest.tracing import start_job_span
from rayline.metrics.process import metrics_wanted
from rayline.telemetry import Tracing, open_tracing
from tests.unit.ingest.jobs import job


def a_round(arm: Arm, jobs_per_s: float, *, cpu: float = 0.02, lost: int = 0) -> Round:
    return Round(arm, jobs_per_s, {"lane": cpu, "workers": 0.01}, lost, 0, 0, 100 if arm is Arm.ON else 0)


def test_arms_take_turns_so_that_a_drift_meets_both_alike() -> None:
    arms = order(4)
    assert arms[:4] == [Arm.OFF, Arm.ON, Arm.ON, Arm.OFF]
    assert Counter(arms) == {Arm.OFF: 4, Arm.ON: 4}
    # A machine that gets slower by the same amount each round is no cost.
    drifting = [a_round(arm, 1000 - 10 * number) for number, arm in enumerate(arms)]
    assert judge(drifting)["cost_percent"] == 0


def test_the_cost_is_the_ratio_of_medians_and_more_than_five_percent_is_too_much() -> None:
    good = judge([a_round(arm, {Arm.OFF: 1000, Arm.ON: 960}[arm], cpu={Arm.OFF: 0.02, Arm.ON: 0.023}[arm]) for arm in order(3)])
    assert good["cost_percent"] == 4.0
    assert good["pairs"] == [0.96] * 3
    assert good["cost_percent_by_cpu"] == 10.0
    assert good["arms"]["on"] == {
        "jobs_per_s": 960,
        "spread": [960, 960],
        "cpu_s_per_1000": {"lane": 0.023, "workers": 0.01},
        "traced": 300,
    }
    assert all(bar["met"] for bar in good["bars"])
    bad = judge([a_round(arm, {Arm.OFF: 1000, Arm.ON: 940}[arm]) for arm in order(3)])
    assert [bar["met"] for bar in bad["bars"]] == [False, True]
    lossy = judge([a_round(arm, 1000, lost=1) for arm in order(1)])
    assert [bar["met"] for bar in lossy["bars"]] == [True, False]


def test_only_the_part_between_warm_up_and_the_last_jobs_is_judged() -> None:
    part = SteadyPart(1000)
    marks = [Mark(float(at), done) for at, done in enumerate((0, 200, 310, 600, 940, 960, 1000))]
    assert [mark.done for mark in marks if part.take(mark)] == [310, 960]
    assert (part.seconds, part.jobs) == (3.0, 650)
    assert SteadyPart(1000).seconds == 0


def test_a_part_that_never_ended_has_no_length() -> None:
    part = SteadyPart(1000)
    assert part.take(Mark(1.0, 1000))
    assert (part.seconds, part.jobs) == (0.0, 0)


def test_each_job_begins_a_sampled_trace_of_which_one_in_a_hundred_is_taken() -> None:
    tracing = Tracing(TracerProvider())
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
    assert job_spans(file) == 0
    for offset in range(3):
        span = start_job_span(tracing, job(offset, headers=(("traceparent", new_traceparent()),)), app="app", lane="0")
        assert span is not None
        span.span.end()
    other = tracing.start("rayline.batch", new_traceparent())
    assert other is not None
    other.end()
    tracing.close()
    assert job_spans(file) == 3


@pytest.mark.parametrize("number", range(3))
def test_a_traceparent_is_of_the_w3c_form(number: int) -> None:
    version, trace, span, flags = new_traceparent().split(b"-")
    assert (version, len(trace), len(span), flags) == (b"00", 32, 16, b"01"), number
