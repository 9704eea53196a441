"""The verdict follows from the figures: medians, no forgiven loss, each bar from its own ratio."""

import io
from typing import Any

import pytest
from rich.console import Console

from bench.bars import ALONE
from bench.latency import OpenLoop
from bench.load import Schedule
from bench.run import Round, outcome_of
from bench.table import print_outcome
from deploy.checker import LatencyMs


def _round(speed: float, *, lost: int = 0, duplicated: int = 0, lane: float = 0.01, workers: float = 0.002) -> Round:
    cpu = {"lane": lane, "workers": workers, "broker": 0.005}
    return Round(jobs_per_s=speed, lost=lost, duplicated=duplicated, wrong=0, cpu_s_per_1000=cpu)


def _open_loop(p99: float = 90, highest: float = 150, missing: int = 0) -> OpenLoop:
    schedule = Schedule(started_ms=0, rate_per_s=10_000, jobs=10, worst_slip_ms=1)
    return OpenLoop(schedule=schedule, latency_ms=LatencyMs(30, p99, p99, highest), over_one_second=0, missing=missing)


def _outcome(**changes: Any) -> dict[str, Any]:
    rounds = {
        ("rayline", "echo"): [_round(70_000), _round(10), _round(80_000)],
        (ALONE, "echo"): [_round(60_000)],
        ("echo_ray_micro_batches", "echo"): [_round(30_000)],
    }
    rounds.update(changes.pop("rounds", {}))
    return outcome_of(rounds, changes.pop("open_loop", _open_loop()))


def test_medians_and_spread() -> None:
    outcome = _outcome()
    assert outcome["workloads"]["echo"]["jobs_per_s"] == 70_000
    assert outcome["workloads"]["echo"]["spread"] == [10, 80_000]
    assert set(outcome["references"]) == {ALONE, "echo_ray_micro_batches"}


def test_all_bars_met_when_figures_are_good() -> None:
    bars = _outcome()["bars"]
    assert len(bars) == 7
    assert all(bar["met"] for bar in bars)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"open_loop": _open_loop(p99=201)}, "p99"),
        ({"open_loop": _open_loop(highest=1001)}, "max"),
        ({"open_loop": _open_loop(missing=1)}, "missing"),
        ({"rounds": {(ALONE, "echo"): [_round(120_000)]}}, ALONE),
        ({"rounds": {("echo_ray_micro_batches", "echo"): [_round(60_000)]}}, "echo_ray_micro_batches"),
        ({"rounds": {("rayline", "echo"): [_round(70_000, lane=0.017)]}}, "CPU"),
        ({"rounds": {("rayline", "echo"): [_round(70_000), _round(70_000, lost=1)]}}, "lost"),
        ({"rounds": {("rayline", "echo"): [_round(70_000, duplicated=1), _round(70_000)]}}, "lost"),
    ],
)
def test_one_bad_figure_misses_one_bar(changes: dict[str, Any], missed: str) -> None:
    names = [bar["name"] for bar in _outcome(**changes)["bars"] if not bar["met"]]
    assert len(names) == 1
    assert missed in names[0]


def test_what_was_not_measured_has_no_bar() -> None:
    outcome = outcome_of({(ALONE, "echo"): [_round(1)]}, None)
    assert outcome["bars"] == []
    assert outcome["workloads"] == {}


def test_the_table_shows_every_contestant_and_each_bar() -> None:
    out = io.StringIO()
    print_outcome(_outcome(open_loop=_open_loop(p99=201)), Console(file=out, width=160))
    shown = out.getvalue()
    for name in ("rayline: echo", ALONE, "echo_ray_micro_batches", "70,000", "MISSED"):
        assert name in shown
