"""A verdict as a table for people."""

from __future__ import annotations

from typing import Final

from rich.console import Group
from rich.table import Table

from deploy.chaos.bars import Bar
from deploy.chaos.verdict import Verdict

MAX_FAULTS: Final = 24


def verdict_table(verdict: Verdict) -> Group:
    """One line for each fault (the first ones of many), then one for each number, with its bar where it has one."""
    return Group(*([_faults(verdict)] if verdict.strokes else []), _numbers(verdict), _bars(verdict.bars()))


def _faults(verdict: Verdict) -> Table:
    table = Table(title=f"chaos {verdict.plan.name}, seed {verdict.seed}", title_justify="left", title_style="bold")
    for heading in ("at", "fault", "target"):
        table.add_column(heading, no_wrap=True)
    table.add_column("all partitions again after", justify="right")
    table.add_column("last slow job after", justify="right")
    pairs = list(zip(verdict.strokes, verdict.recoveries, strict=True))
    for stroke, recovery in pairs[:MAX_FAULTS]:
        at = f"{(stroke.at_ms - verdict.found.begun_ms) / 1000:.1f} s"
        if stroke.skipped is not None:
            table.add_row(at, stroke.kind, f"{stroke.target} [yellow](skipped)[/]", "–", "–")
            continue
        settled = f"{recovery.settled_ms / 1000:.2f} s" if recovery.settled_ms else "none was slow"
        table.add_row(at, stroke.kind, stroke.target, f"{recovery.recovery_ms / 1000:.2f} s", settled)
    if len(pairs) > MAX_FAULTS:
        table.caption = f"… and {len(pairs) - MAX_FAULTS} more"
    return table


def _numbers(verdict: Verdict) -> Table:
    table = Table(show_header=False, box=None)
    outcomes = ", ".join(f"{name} {count}" for name, count in verdict.outcomes.items())
    load = verdict.found
    of = f", of {load.sustained_per_second:.0f} sustained" if load.sustained_per_second is not None else ""
    begun_ms = load.begun_ms
    bursts = [f"{(start - begun_ms) / 1000:.0f} to {(end - begun_ms) / 1000:.0f} s" for start, end in verdict.bursts]
    rows = [
        *(("burst", burst) for burst in bursts),
        ("jobs", f"{verdict.jobs} at {load.rate_per_second:.0f}/s{of}: {outcomes}"),
        ("latency p50 / p99 / max", _three(verdict.latency_ms)),
        ("notice to last dispatch", _three(verdict.notice_ms)),
        ("kill to second dispatch", _three(verdict.redispatch_ms)),
        ("longest recovery", f"{verdict.recovery_ms:.0f} ms"),
        ("latency normal again", _one(verdict.normal_ms)),
        ("99.9 % ok again", _one(verdict.ok_again_ms)),
        ("successor serves after", _one(verdict.serving_again_ms)),
        ("back in rotation after", _one(verdict.back_in_rotation_ms)),
        ("share back to 80 % after", _one(verdict.share_back_ms)),
        ("extra attempts", "–" if verdict.extra_attempts_share is None else f"{verdict.extra_attempts_share:.1%}"),
        ("inside 10 s and ok", f"{verdict.ok_in_time_share:.3%}"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _bars(bars: list[Bar]) -> Table:
    table = Table(title="bars", title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("what")
    table.add_column("wanted", no_wrap=True)
    table.add_column("measured", justify="right")
    for bar in bars:
        mark = "[bold green]met[/]" if bar.met else "[bold red]missed[/]"
        table.add_row(mark, bar.name, bar.wanted, bar.text())
    return table


def _one(value_ms: float | None) -> str:
    return "–" if value_ms is None else f"{value_ms:.0f} ms"


def _three(latency: object) -> str:
    values = [getattr(latency, name) for name in ("p50", "p99", "max")]
    return " / ".join("–" if value is None else f"{value:.0f}" for value in values) + " ms"
