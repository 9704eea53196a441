"""The head of the screen: the platform in two lines, its latency over time, and what is wrong. Pure."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from deploy.observation import AppRow, Series, Snapshot
from deploy.top.figures import clock, columns, count, duration
from scheduler.view import Standing

_MARK_STYLES: Final = {
    "notice": "bold magenta",
    "silent": "bold red",
    "lost": "bold red",
    "gone": "red",
    "replaced": "yellow",
    "recovered": "green",
    "built": "green",
    "config": "cyan",
    "cordon": "cyan",
    "keeper": "blue",
}
_SCALE_CHARS: Final = 9


def head(snapshot: Snapshot) -> Text:
    """Who is there."""
    nodes = [node for node in snapshot.nodes if node.state != Standing.GONE.value]
    ready = sum(1 for node in nodes if node.state == Standing.READY.value)
    text = Text.assemble(("RAYLINE", "bold reverse"), " ")
    text.append(f"{ready}/{len(nodes)} nodes ready", style="" if ready == len(nodes) else "yellow")
    text.append(f" · {_plural(len(snapshot.clusters), 'cluster')} · {_plural(len(snapshot.apps), 'app')}")
    text.append(f" · {clock(snapshot.at_ms)} · {snapshot.broker}")
    text.append(f" · keeper {snapshot.keeper}" if snapshot.keeper is not None else "")
    return text


def figures(snapshot: Snapshot) -> Text:
    """How it goes, over all apps: the p99 of the worst app is the one that counts."""
    recent = [app.recent for app in snapshot.apps if app.recent is not None]
    worst = max((app for app in snapshot.apps if _p99(app) is not None), key=lambda app: _p99(app) or 0.0, default=None)
    p99 = _p99(worst) if worst is not None else None
    over = worst is not None and p99 is not None and p99 > worst.sla_seconds * 1000
    misses = [app.windows[60].misses for app in snapshot.apps if 60 in app.windows]
    lags = [app.lag for app in snapshot.apps if app.lag is not None]
    text = Text()
    text.append("p99 ")
    text.append(duration(p99), style="bold red" if over else "bold green")
    text.append(f" {worst.app} (SLA {worst.sla_seconds:g} s)" if worst is not None else "")
    into = [app.rate_in for app in snapshot.apps if app.rate_in is not None]
    out = sum(one.per_second for one in recent) if recent else None
    text.append(f" │ in {count(sum(into) if into else None)} out {count(out)}/s")
    text.append(f" │ lag {count(sum(lags) if lags else None)} │ ")
    missed = sum(misses)
    text.append(f"missed {count(missed) if misses else '–'}/min", style="bold red" if missed else "")
    if any(not one.exact for one in recent):
        read, came = sum(one.sampled for one in recent), sum(one.results for one in recent)
        text.append(f" │ {read / max(1, came):.0%} read", style="dim")
    return text


def alarms(snapshot: Snapshot, *, limit: int = 2) -> list[Text]:
    """What is wrong, the oldest first; one line each."""
    stalls = sorted(snapshot.stalls, key=lambda stall: stall.since_ms)
    lines = [
        Text(f"▲ {clock(stall.since_ms)} {stall.text}", style="bold white on red", no_wrap=True, overflow="ellipsis")
        for stall in stalls[:limit]
    ]
    if len(stalls) > limit:
        lines[-1] = Text(f"▲ and {len(stalls) - limit + 1} more: ! lists them", style="bold white on red", no_wrap=True)
    return lines


def chart(series: Series, width: int, height: int) -> list[Text]:
    """p99 by second, as wide as there is room, with the events that may explain it below."""
    room = max(1, width - _SCALE_CHARS)
    points = series.points[-room:]
    values = [point.p99_ms for point in points]
    highest = max((value for value in values if value is not None), default=0.0)
    lines = columns(values, height - 1, highest)
    rows = []
    for number, line in enumerate(lines):
        scale = duration(highest) if number == 0 and highest else "p99 all" if number == len(lines) - 1 else ""
        rows.append(Text.assemble((f"{scale:>{_SCALE_CHARS - 1}} ", "dim"), (line.rjust(room), "green"), no_wrap=True))
    marks = Text(f"{'events':>{_SCALE_CHARS - 1}} ", style="dim", no_wrap=True)
    first = points[-1].second - room + 1 if points else 0
    at = {mark.at_ms // 1000: mark.mark for mark in series.marks if mark.mark is not None}
    for second in range(first, first + room):
        marks.append("▲" if second in at else "·" if second % 60 == 0 else " ", style=_MARK_STYLES.get(at.get(second, ""), "dim"))
    return [*rows, marks]


def _p99(app: AppRow) -> float | None:
    return app.recent.p99_ms if app.recent is not None else None


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
