"""Finding one job: what became of it, where, and its journey as a waterfall."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from deploy.console import charts, parts, shown
from deploy.console.desk import Desk
from deploy.console.frame import View, told
from deploy.console.printed import Printed
from deploy.job_search import Found
from deploy.journey import pick_text, place_text, tried_lines
from rayline.results import Result

MAX_ID_CHARS: Final = 512
_MOST_SHOWN: Final = 20
_SPANS: Final = {0.25: "last 15 minutes", 1: "last hour", 24: "last day", 168: "last week"}
_COLOURS: Final = {"queue": charts.WARN, "dispatch": "#2aa7c9", "execute": charts.ACCENT, "publish": charts.GOOD}


def jobs(view: View, app: str | None, job_id: str | None) -> None:
    """Build the page; `app` and `job_id` come from its address, so that a search can be sent to somebody."""
    names = [row.app for row in view.console.source.snapshot().apps]
    parts.text("Find a job", "rl-h1", "h1")
    if not names:
        with parts.box("rl-card"):
            parts.empty("No app is deployed", "A job belongs to an app.", "rayline deploy app.yaml")
        return
    with parts.card(), parts.box("rl-tools"):
        which = ui.select(names, value=app if app in names else names[0], label="App").props("dense outlined")
        wanted = ui.input("Job id, or topic/partition/offset", value=(job_id or "")[:MAX_ID_CHARS])
        wanted.props(f"dense outlined clearable maxlength={MAX_ID_CHARS}").classes("rl-grow rl-search")
        span = ui.select(_SPANS, value=1, label="Look back").props("dense outlined")
        button = ui.button("Find", icon="search")
    place = parts.box("rl-grid")

    async def find() -> None:
        asked = (wanted.value or "").strip()[:MAX_ID_CHARS]
        if not asked:
            return
        printed = None
        button.props("loading")
        try:
            with told():
                found = await view.console.desk.find_job(str(which.value), asked, hours=float(span.value))
                printed = _show(place, found, asked, view.console.desk)
        finally:
            button.props(remove="loading")
        if printed is not None:
            await printed.read()

    button.on_click(find)
    wanted.on("keydown.enter", find)
    with place:
        parts.empty("Which job?", "Its id stands in its producer's log, in its result, and in every log line about it.")
    if job_id:
        ui.timer(0.05, find, once=True)


def _show(place: ui.element, found: Found, asked: str, desk: Desk) -> Printed | None:
    """Returns whose lines are read at once: those of the only result. Of several, each is read when it is asked for."""
    place.clear()
    with place:
        looked = f"{shown.count(found.looked)} results were looked at" + ("" if found.whole else ", then the time was up")
        if not found.results:
            with parts.box("rl-card"):
                parts.empty(f"No result of {asked}", f"{looked}. It may be older, still be on its way, or never have come in.")
            return None
        printed = [_journey(result, desk) for result in found.results[:_MOST_SHOWN]]
        if len(found.results) > _MOST_SHOWN:
            parts.text(f"{len(found.results)} results have that id; the first {_MOST_SHOWN} stand here.", "rl-sub")
        parts.text(looked, "rl-sub")
    return printed[0] if len(printed) == 1 else None


def _journey(result: Result, desk: Desk) -> Printed:
    with parts.card():
        with parts.box("rl-row"):
            parts.text(result.job_id, "rl-h1", "h2").style("overflow-wrap:anywhere")
            parts.state(result.outcome.value)
        phases = [(name, ms, _COLOURS.get(name, "#8d97aa")) for name, ms in result.timing_ms.items()]
        total = sum(result.timing_ms.values())
        ended = result.timestamp_ms
        parts.text(f"{shown.milliseconds(total)} from {shown.moment(round(ended - total))} to {shown.moment(ended)}", "rl-sub")
        if phases:
            says = ", ".join(f"{name} {shown.milliseconds(ms)}" for name, ms, _ in phases)
            parts.Chart(charts.waterfall(phases), "rl-chart low", says=says)
        if result.error_type:
            parts.text(f"{result.error_type}: {result.error_message or ''}", "rl-mono rl-bad")
        parts.facts(
            [
                ("Ran on", place_text(result)),
                ("Attempts", f"{result.attempts}" + (f", last in batch {result.batch}" if result.batch else "")),
                ("App version", result.app_version or shown.NOTHING),
                ("Model", result.model_version or shown.NOTHING),
                ("Record", result.source),
                ("Key", shown.readable(result.key)),
                ("Trace", result.trace_id or shown.NOTHING),
            ]
        )
        if result.tried:
            parts.text("Attempts without an answer", "rl-sub")
            for line in tried_lines(result):
                parts.text(line, "rl-mono")
        if result.pick is not None:
            with ui.expansion("Why this node").props("dense"):
                parts.text(_why(result), "rl-mono")
        return Printed(result, desk)


def _why(result: Result) -> str:
    try:
        return pick_text(result)
    except ValueError:
        return shown.readable((result.pick or "").encode())
