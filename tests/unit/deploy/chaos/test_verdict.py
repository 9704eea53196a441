"""Recovery as documented, the bars, and the form for machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.chaos.load import Clockwork, job_payload
from deploy.chaos.verdict import Answer, Recovery, Stroke, Verdict, recovery_after
from deploy.checker import LatencyMs, Report

REPORT = Report(3, 3, {"ok": 3}, 0, 0, 0, 0, 0, 0, LatencyMs(1, 1, 1, 1), 0, 1)
FAULT_MS = 10_000.0


def test_recovery_waits_for_the_slowest_partition() -> None:
    answers = [
        Answer(0, FAULT_MS - 50, FAULT_MS + 10),  # arrived before the fault: proves nothing
        Answer(0, FAULT_MS + 20, FAULT_MS + 60),
        Answer(1, FAULT_MS + 30, FAULT_MS + 2500),
        Answer(1, FAULT_MS + 2600, FAULT_MS + 2650),
    ]
    assert recovery_after(FAULT_MS, answers).recovery_ms == 2500


def test_settled_is_when_the_last_slow_job_was_answered() -> None:
    answers = [Answer(0, FAULT_MS - 100, FAULT_MS + 1500), Answer(0, FAULT_MS + 5, FAULT_MS + 1200), Answer(0, 90_000, 95_000)]
    assert recovery_after(FAULT_MS, answers) == Recovery(recovery_ms=1200, settled_ms=1500)


def test_without_a_later_job_there_is_nothing_to_recover() -> None:
    assert recovery_after(FAULT_MS, [Answer(0, 1, 2)]) == Recovery(recovery_ms=0, settled_ms=0)


def verdict(report: Report = REPORT, left: int = 0) -> Verdict:
    return Verdict.of(
        plan="lane-kill",
        seed=3,
        report=report,
        answers=[Answer(0, FAULT_MS + 1, FAULT_MS + 301)],
        strokes=[Stroke(FAULT_MS, "kill", "lane-chaos-echo-0")],
        begun_ms=8_000.0,
        left_over_processes=left,
    )


def test_json_has_the_promised_keys_and_times_since_the_beginning() -> None:
    written = verdict().to_json()
    assert list(written) == [
        "plan",
        "seed",
        "jobs",
        "outcomes",
        "lost",
        "duplicated",
        "latency_ms",
        "recovery_ms",
        "faults",
        "left_over_processes",
    ]
    assert written["faults"][0] == {
        "at_ms": 2000.0,
        "kind": "kill",
        "target": "lane-chaos-echo-0",
        "recovery_ms": 301.0,
        "settled_ms": 0.0,
    }
    assert written["latency_ms"] == {"p50": 300.0, "p99": 300.0, "max": 300.0}


@pytest.mark.parametrize("change", [{"lost": 1}, {"duplicated": 1}, {"unknown": 1}, {"wrong_payload": 1}, {"mismatched_ids": 1}])
def test_each_count_of_the_checker_is_a_bar(change: dict[str, int]) -> None:
    assert verdict().missed_bars() == []
    assert len(verdict(replace(REPORT, **change)).missed_bars()) == 1


def test_processes_left_behind_are_a_bar() -> None:
    assert verdict(left=2).missed_bars() == ["2 process(es) left behind"]


def test_jobs_are_due_at_a_steady_rate_and_differ() -> None:
    clockwork = Clockwork(begun_ms=1000.0, rate_per_second=50.0)
    assert [clockwork.due_ms(number) for number in (0, 1, 50)] == [1000.0, 1020.0, 2000.0]
    assert job_payload(1) != job_payload(2)


def test_a_missed_deadline_is_told_but_an_error_is_a_missed_bar() -> None:
    assert verdict(replace(REPORT, outcomes={"ok": 2, "deadline_exceeded": 1})).missed_bars() == []
    assert len(verdict(replace(REPORT, outcomes={"ok": 2, "quarantined": 1})).missed_bars()) == 1
