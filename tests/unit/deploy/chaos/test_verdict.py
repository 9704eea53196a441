"""The bars, and the form for machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.chaos.plan import Bars, Kind, LoadPhase, LoadSpec, Target
from tests.unit.deploy.chaos.staged import FAULT_MS, REPORT, answer, evidence, execution, stroke, verdict

PROMISED_KEYS = [
    "plan",
    "seed",
    "jobs",
    "outcomes",
    "lost",
    "duplicated",
    "latency_ms",
    "notice_to_last_dispatch_ms",
    "kill_to_redispatch_ms",
    "recovery_ms",
    "extra_attempts_share",
    "faults",
    "left_over_processes",
]


def missed(**options: object) -> list[str]:
    return [bar.name for bar in verdict(**options).missed_bars()]  # type: ignore[arg-type]


def test_json_has_the_promised_keys_first_and_times_since_the_beginning() -> None:
    written = verdict().to_json()
    assert list(written)[: len(PROMISED_KEYS)] == PROMISED_KEYS
    assert {"at_ms": 10_000.0, "kind": "notice", "target": "c1-pod-101"}.items() <= written["faults"][0].items()
    for name in ("latency_ms", "notice_to_last_dispatch_ms", "kill_to_redispatch_ms"):
        assert list(written[name]) == ["p50", "p99", "max"]
    assert written["latency_ms"] == {"p50": 300.0, "p99": 300.0, "max": 300.0}
    assert written["kill_to_redispatch_ms"]["p99"] is None


@pytest.mark.parametrize("change", [{"lost": 1}, {"duplicated": 1}, {"unknown": 1}, {"wrong_payload": 1}, {"mismatched_ids": 1}])
def test_each_count_of_the_checker_is_a_bar_of_every_plan(change: dict[str, int]) -> None:
    assert missed() == []
    assert len(missed(report=replace(REPORT, **change))) == 1  # type: ignore[arg-type]


def test_processes_left_behind_are_a_bar() -> None:
    assert missed(left=2) == ["processes left over"]


def test_an_outcome_that_the_plan_does_not_allow_is_a_missed_bar() -> None:
    late = replace(REPORT, outcomes={"ok": 2, "deadline_exceeded": 1})
    assert missed(report=late) == []
    assert missed(report=late, bars=Bars(outcomes=("ok",))) == ["outcomes"]


@pytest.mark.parametrize(
    ("bars", "measured"),
    [
        (Bars(job_max_ms=299), 300.0),
        (Bars(job_p99_ms=299), 300.0),
        (Bars(notice_p99_ms=39), 40.0),
        (Bars(notice_max_ms=39), 40.0),
        (Bars(extra_attempts_share=0.4), 0.5),
        (Bars(ok_in_time_share=0.999), 1 / 3),
        (Bars(quarantined=1), 0),
    ],
)
def test_a_bar_is_missed_beyond_its_limit(bars: Bars, measured: float) -> None:
    seen = evidence([answer(due=1)], [execution(1, 101, 40, 45), execution(1, 102, 50, 55), execution(2, 102, 50, 55)])
    (bar,) = verdict(seen=seen, bars=bars).missed_bars()
    assert bar.measured == pytest.approx(measured)


def test_what_was_not_observed_is_not_met() -> None:
    (bar,) = verdict(bars=Bars(redispatch_p99_ms=1000)).missed_bars()
    assert bar.measured is None
    assert bar.text() == "not observed"


def test_the_view_must_be_whole_again_in_time_after_a_fault_of_the_control_plane() -> None:
    killed = [stroke(Kind.KILL, Target.RESOURCE)]
    before = (-500.0, {"a", "b"})
    assert missed(strokes=killed, bars=Bars(view_again_ms=1000), view=[before, (800.0, {"a", "b"})]) == []
    assert missed(strokes=killed, bars=Bars(view_again_ms=1000), view=[before, (800.0, {"a"}), (1_200.0, {"b"})]) != []


def test_a_skipped_fault_is_told_and_fails_nothing() -> None:
    judged = verdict(strokes=[stroke(Kind.DELAY, skipped="no netem")])
    assert judged.missed_bars() == []
    assert judged.to_json()["faults"][0]["skipped"] == "no netem"
    assert any("no netem" in bar.text() for bar in judged.bars())


def test_disturbed_jobs_are_compared_with_those_before() -> None:
    lasting = stroke(Kind.THROTTLE, until_ms=FAULT_MS + 5_000)
    seen = evidence([answer(due=-5_000, took=100), answer(due=1_000, took=140)])
    assert verdict(strokes=[lasting], seen=seen).disturbed_p99_factor == pytest.approx(1.4)


def test_a_share_that_flaps_or_stays_away_is_a_missed_bar() -> None:
    lasting = stroke(Kind.THROTTLE, until_ms=FAULT_MS + 8_000)
    wanted = Bars(share_back_ms=10_000, share_crossings=1)

    def named(*kept: bool) -> list[str]:
        """`kept`: whether the pod has its share, in each 4 s from 12 s before the fault on."""
        jobs = [(n, n * 25.0 - 12_000) for n in range(len(kept) * 160)]
        seen = evidence([answer(due=1)], [execution(n, 101 if kept[n // 160] and n % 2 else 102, at, at + 1) for n, at in jobs])
        return missed(strokes=[lasting], seen=seen, bars=wanted)

    up, down = True, False
    assert named(up, up, up, down, down, up, up, up) == []
    assert named(up, up, up, down, down, down, down, down) == ["its share back to 80 % after, ms"]
    assert named(up, up, up, down, up, down, up, up) == ["falls of its share below half", "rises of its share over half"]


def test_an_overload_must_end_with_its_burst() -> None:
    load = LoadSpec(rate=50, phases=(LoadPhase(seconds=10, times=1), LoadPhase(seconds=10, times=6)))
    wanted = Bars(ok_again_ms=20_000, normal_again_ms=20_000)

    def named(late_until: float) -> list[str]:
        """Jobs that are due from 5 s after the burst's beginning (which is at the fault's moment) until then are late."""
        late = [answer(n, due=n * 20.0, took=10_050, outcome="deadline_exceeded") for n in range(250, int(late_until * 50))]
        good = [answer(n, due=n * 20.0) for n in [*range(-500, 250), *range(int(late_until * 50), 3_000)]]
        return missed(strokes=[], seen=evidence([*late, *good]), bars=wanted, load=load)

    assert named(late_until=25) == []
    assert named(late_until=35) == ["99.9 % ok again after, ms", "latency normal again after, ms"]
    assert named(late_until=60) == ["99.9 % ok again after, ms", "latency normal again after, ms"]


def test_a_burst_is_told_with_its_rate() -> None:
    load = LoadSpec(phases=(LoadPhase(seconds=10, times=6),))
    assert verdict(load=load).to_json()["load"]["phases"] == [{"seconds": 10.0, "per_second": 300.0}]


def test_a_node_that_counted_as_silent_without_a_fault_is_a_missed_bar() -> None:
    judged = verdict(bars=Bars(suspected_wrongly=0))
    assert judged.missed_bars() == []
    hasty = replace(judged, found=replace(judged.found, suspected=[(FAULT_MS + 4_000, "c1/pod-102")]))
    assert [bar.name for bar in hasty.missed_bars()] == ["nodes that counted as silent and were not"]
    assert hasty.to_json()["suspected_wrongly"] == 1
