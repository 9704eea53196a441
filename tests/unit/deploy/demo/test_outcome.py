"""The verdict of a demo: what it prints and writes, and which bar it missed."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from deploy.checker import LatencyMs, Report
from deploy.demo.outcome import Outcome
from deploy.demo.tally import Tally
from deploy.demo.view import NodeStatus, View, node_summary, outcome_table
from rayline.reports import NodeState
from tests.unit.deploy.demo.recorded import read

GOOD = Outcome(
    jobs=90,
    outcomes={"ok": 90},
    lost=0,
    duplicated=0,
    p50_ms=800,
    p99_ms=3000,
    max_ms=3500,
    accuracy=0.985,
    evictions=1,
    retries=2,
    seconds=70,
)


def finished_tally() -> Tally:
    tally = Tally(planned=2)
    for job_id, at in (("a", 1.0), ("b", 3.0)):
        tally.sent(job_id, 0.0)
        tally.answered(read(job_id), at)
    return tally


def report(**changes: int) -> Report:
    counted = Report(2, 2, {"ok": 2}, 0, 0, 0, 0, 0, 0, LatencyMs(1000, 2500, 2500, 2500), 0, 1)
    return replace(counted, **changes)


def test_json_has_exactly_the_promised_shape(tmp_path: Path) -> None:
    GOOD.write(tmp_path / "out" / "demo.json")
    written = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert list(written) == [
        "jobs",
        "outcomes",
        "lost",
        "duplicated",
        "latency_ms",
        "accuracy",
        "evictions",
        "retries",
        "seconds",
    ]
    assert list(written["latency_ms"]) == ["p50", "p99", "max"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lost": 1}, "lost"),
        ({"duplicated": 1}, "duplicated"),
        ({"max_ms": 10_001.0}, "slowest"),
        ({"accuracy": 0.949}, "accuracy"),
        ({"evictions": 0}, "evicted"),
        ({"outcomes": {"ok": 89, "error": 1}}, "outcome"),
    ],
)
def test_each_bar_can_be_missed_and_says_so(change: dict[str, object], named: str) -> None:
    assert GOOD.missed_bars() == []
    missed = replace(GOOD, **change).missed_bars()  # type: ignore[arg-type]
    assert len(missed) == 1
    assert named in missed[0]


def test_lost_and_duplicated_are_the_checkers_not_the_tallys() -> None:
    truths = {"a": "text", "b": "text"}
    outcome = Outcome.of(finished_tally(), report(lost=1, duplicated=2, unknown=3), truths=truths, evictions=1, seconds=9)
    assert (outcome.lost, outcome.duplicated) == (1, 5)


def test_the_slowest_is_the_worse_of_what_broker_and_reader_saw() -> None:
    outcome = Outcome.of(finished_tally(), report(), truths={}, evictions=1, seconds=9)
    assert outcome.max_ms == 3000


def test_a_page_without_an_answer_counts_as_not_read() -> None:
    outcome = Outcome.of(finished_tally(), report(), truths={"a": "text", "gone": "text"}, evictions=1, seconds=9)
    assert outcome.accuracy == pytest.approx(0.5)


def test_plain_output_tells_progress_and_events_once() -> None:
    output = io.StringIO()
    tally = finished_tally()
    tally.happened("eviction notice to c1-pod-1", 2.0)
    with View(Console(file=output, width=100), tally) as view:
        for now in (3.0, 3.1):
            view.update(now, [])
    text = output.getvalue()
    assert text.count("eviction notice") == 1
    assert "2/2 read" in text


def test_the_live_view_shows_pods_states_and_events() -> None:
    output = io.StringIO()
    tally = finished_tally()
    tally.happened("eviction notice to c1-pod-1", 2.0)
    console = Console(file=output, force_terminal=True, width=110, height=40, _environ={"TERM": "xterm-256color"})
    with View(console, tally) as view:
        view.update(3.0, [NodeStatus("c1-pod-1", "c1", NodeState.DRAINING), NodeStatus("c2-pod-1", "c2", NodeState.READY)])
    text = output.getvalue()
    assert all(word in text for word in ("draining", "ready", "eviction notice", "last read: text"))


def test_tables_show_every_number() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100)
    console.print(outcome_table(replace(GOOD, lost=3)))
    console.print(node_summary(finished_tally().nodes, ["c1-pod-1"]))
    text = output.getvalue()
    assert all(word in text for word in ("98.50%", "3.50 s", "≤ 10 s", "c1-pod-1 evicted"))
