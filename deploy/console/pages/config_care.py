"""How carefully a setting is changed, as the config editor asks, shows while it watches, and tells in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nicegui import ui

from deploy.config_flow import Care, Report
from deploy.config_guard import Margin, Quality
from deploy.console import parts

_FIRST: Final = "the first concerned"
_GUARD_SECONDS: Final = 30
_MIN_GUARD_SECONDS: Final = 2
_MAX_GUARD_SECONDS: Final = 600
_MARGIN_PERCENT: Final = 25
_LOOK_SECONDS: Final = 0.5
_FIGURES: Final[list[dict[str, Any]]] = [
    {"name": "when", "label": "", "field": "when", "align": "left"},
    {"name": "results", "label": "Results", "field": "results"},
    {"name": "p50", "label": "p50", "field": "p50"},
    {"name": "p99", "label": "p99", "field": "p99"},
    {"name": "misses", "label": "Misses", "field": "misses"},
    {"name": "errors", "label": "Errors", "field": "errors"},
    {"name": "invalid", "label": "Invalid", "field": "invalid"},
]


class Carefulness:
    """Owns the fields for one process first, and for the guard."""

    def __init__(self, processes: Callable[[], list[str]]) -> None:
        """`processes` are those that one may choose from."""
        self._processes = processes
        with parts.box("rl-tools"):
            self._canary = ui.checkbox("One process first", on_change=self._choose)
            self._only = ui.select([_FIRST], value=_FIRST, label="Which").props("dense outlined")
            self._only.bind_visibility_from(self._canary, "value")
        with parts.box("rl-tools"):
            self._guard = ui.checkbox("Watch the results, and take it back when they get worse")
            self._seconds = _number("Seconds", _GUARD_SECONDS, _MIN_GUARD_SECONDS, _MAX_GUARD_SECONDS)
            self._margin = _number("p99 may grow by, %", _MARGIN_PERCENT, 0, 1_000)
            for field in (self._seconds, self._margin):
                field.bind_visibility_from(self._guard, "value")

    def chosen(self) -> Care:
        """What the fields say now; what is left empty is as it was at first."""
        seconds = float(self._seconds.value if self._seconds.value is not None else _GUARD_SECONDS)
        percent = float(self._margin.value if self._margin.value is not None else _MARGIN_PERCENT)
        return Care(
            canary=bool(self._canary.value),
            only=str(self._only.value) if self._canary.value and self._only.value != _FIRST else None,
            guard_seconds=min(max(seconds, _MIN_GUARD_SECONDS), _MAX_GUARD_SECONDS) if self._guard.value else None,
            margin=Margin(p99_factor=1 + max(0.0, percent) / 100),
        )

    def _choose(self) -> None:
        self._only.set_options([_FIRST, *self._processes()], value=_FIRST)


class Progress:
    """What is told while a change is under way. `say` and `look` touch no element: who calls them may outlive the page."""

    def __init__(self, care: Care) -> None:
        self._said: list[str] = []
        self._seen: Quality | None = None
        self._shown = 0
        with parts.box("rl-grid").style("gap:.3rem") as self._place:
            self._line = parts.Field("rl-sub")
        if care.guard_seconds is not None:
            self._line.show("Reading the results before the change …")
        self._timer = ui.timer(_LOOK_SECONDS, self._show)

    def say(self, line: str) -> None:
        self._said.append(line)

    def look(self, seen: Quality) -> None:
        self._seen = seen

    def end(self) -> None:
        self._show()
        self._timer.cancel()

    def _show(self) -> None:
        with self._place:
            for line in self._said[self._shown :]:
                parts.text(line, "rl-sub").style("white-space:pre-line")
        self._shown = len(self._said)
        if self._seen is not None:
            self._line.show(
                f"{self._seen.seconds:.0f} s since the change: {self._seen.results} results, p99 {_ms(self._seen.p99_ms)}"
            )


def show_report(report: Report) -> None:
    """What came of a change, first in a word."""
    outcome, judgement = report.outcome, report.judgement
    silent = f"; no answer from {', '.join(outcome.silent)}" if outcome.silent else ""
    answered = f"version {outcome.version}, {len(outcome.effects)} processes answered{silent}"
    if report.rolled_back:
        why = "; ".join(judgement.reasons) if judgement is not None else f"not every process took it: {answered}"
        parts.notice("Taken back", why, "bad")
    elif not outcome.good:
        parts.notice("Not everywhere", answered, "warn")
    elif judgement is not None:
        parts.notice("Stays", f"not worse within {judgement.seconds:.0f} s; {answered}", "good")
    elif report.tried is not None:
        parts.notice("On one process", f"only {report.tried} has it: set it once more for all, or delete the key", "accent")
    else:
        parts.notice("In force", answered, "good")
    if judgement is not None:
        rows = [_figures("before", judgement.before), _figures("since", judgement.after)]
        table = ui.table(columns=_FIGURES, rows=rows, row_key="when", pagination={"rowsPerPage": 0})
        table.props("flat hide-bottom dense").classes("rl-table short")


def _figures(when: str, quality: Quality) -> dict[str, str]:
    return {
        "when": when,
        "results": str(quality.results),
        "p50": _ms(quality.p50_ms),
        "p99": _ms(quality.p99_ms),
        "misses": f"{quality.miss_share:.1%}",
        "errors": f"{quality.error_share:.1%}",
        "invalid": f"{quality.invalid_share:.1%}",
    }


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"


def _number(label: str, value: float, least: float, most: float) -> ui.number:
    return ui.number(label, value=value, min=least, max=most).props("dense outlined")
