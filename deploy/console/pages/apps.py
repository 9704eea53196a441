"""The apps as cards, and one app closely: its promise, latencies, outcomes, partitions and lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from nicegui import ui

from deploy.console import charts, parts, shown
from deploy.console.frame import View
from deploy.console.pages.overview import SPAN_SECONDS, attainment
from deploy.observation.snapshot import AppRow, Snapshot, Window

# A share of the last minute is steady enough to be read, and follows a rollout.
_ANSWERS_SECONDS: Final = 60
_PARTITIONS: Final[list[dict[str, Any]]] = [
    {"name": "partition", "label": "Partition", "field": "partition", "align": "left"},
    {"name": "end", "label": "End", "field": "end", "align": "right"},
    {"name": "committed", "label": "Committed", "field": "committed", "align": "right"},
    {"name": "lag", "label": "Lag", "field": "lag", "align": "right"},
    {"name": "stalled", "label": "Still for", "field": "stalled", "align": "right"},
]


def apps(view: View) -> None:
    """Build the list of apps."""
    parts.text("Apps", "rl-h1", "h1")
    place = parts.box("")

    def show(now: Snapshot) -> None:
        place.clear()
        with place:
            if not now.apps:
                with parts.box("rl-card"):
                    parts.empty("No app is deployed", "A deployed app is here at once.", "rayline deploy app.yaml")
                return
            with parts.box("rl-apps"):
                for app in now.apps:
                    _card(app)

    view.live(show)


def _card(app: AppRow) -> None:
    window = _longest(app)
    link = parts.box("rl-card rl-app", "a")
    link.props["href"] = f"/apps/{quote(app.app, safe='')}"
    with link:
        with parts.box("rl-row"):
            parts.text(app.app, tag="strong")
            parts.text(_versions(app), "rl-sub")
        kept = attainment(window)
        parts.text(f"{shown.attainment(kept)} %" if kept is not None else "no result lately", "rl-num")
        parts.text(f"within {app.sla_seconds:g} s", "rl-sub")
        recent = app.recent
        p99 = recent.p99_ms if recent is not None else None
        parts.text(f"{shown.count(app.rate_out)}/s · p99 {shown.milliseconds(p99)} · {shown.count(app.lag)} wait", "rl-sub")
        if app.problem:
            parts.text(app.problem, "rl-sub rl-bad")


def app_page(view: View, name: str) -> None:
    """Build one app's page."""
    source = view.console.source
    missing = parts.box("rl-card")
    with missing:
        parts.empty(f"No app {name[:100]}", "It is not deployed, or was removed.", "rayline status")
    with parts.box("rl-grid") as whole:
        with parts.box("rl-head"):
            parts.text(name, "rl-h1", "h1")
            about = parts.Field("rl-sub")
        problem = parts.Field("rl-sub")
        with parts.box("rl-grid rl-stats"):
            stats = {title: _figure(title) for title in ("Kept promises", "Results", "p99, last 10 s", "Lag")}
        with parts.box("rl-grid rl-wide"):
            with parts.card("Latency", hint="last 10 min · ▼ a node was taken away"):
                latency = parts.Chart(charts.latency(source.series(name, SPAN_SECONDS), None), says="Latencies")
            with parts.card("Results a second"):
                through = parts.Chart(charts.throughput(source.series(name, SPAN_SECONDS)), says="Results a second")
        with parts.box("rl-grid rl-two"):
            with parts.card("Partitions"):
                table = ui.table(columns=_PARTITIONS, rows=[], row_key="partition", pagination={"rowsPerPage": 0})
                table.props("flat hide-bottom dense virtual-scroll").classes("rl-table short")
            with parts.card("Outcomes and lanes"):
                outcomes = parts.box("rl-grid")

    def show(now: Snapshot) -> None:
        app = next((app for app in now.apps if app.app == name), None)
        whole.set_visibility(app is not None)
        missing.set_visibility(app is None)
        if app is None:
            return
        about.show(f"version {_versions(app)} · {app.actors} actors on {app.nodes} nodes · {app.lanes} lanes")
        problem.show(app.problem or "", "bad")
        window, recent, kept = _longest(app), app.recent, attainment(_longest(app))
        stats["Kept promises"](
            f"{shown.attainment(kept)} %" if kept is not None else shown.NOTHING, f"within {app.sla_seconds:g} s"
        )
        stats["Results"](f"{shown.count(app.rate_out)}/s", f"{shown.count(app.rate_in)}/s come in")
        p50 = shown.milliseconds(recent.p50_ms if recent is not None else None)
        stats["p99, last 10 s"](shown.milliseconds(recent.p99_ms if recent is not None else None), f"p50 {p50}")
        more = "" if app.dead_letters_exact else "at least "
        stats["Lag"](shown.count(app.lag), f"{more}{shown.count(app.dead_letters)} dead letters")
        series = source.series(name, SPAN_SECONDS)
        latency.show(charts.latency(series, app.sla_seconds * 1000))
        through.show(charts.throughput(series))
        table.rows[:] = [
            {
                "partition": row.partition,
                "end": row.end,
                "committed": row.committed,
                "lag": row.lag,
                "stalled": shown.seconds_ago(row.stalled_seconds) if row.stalled_seconds else "",
            }
            for row in app.partitions
        ]
        table.update()
        outcomes.clear()
        with outcomes:
            _outcomes(window)
            for lane in now.lanes:
                if lane.app == name:
                    with parts.box("rl-row"):
                        parts.text(lane.lane, "rl-sub")
                        parts.state("lost" if lane.silent else "suspect" if lane.stale else "ok")

    view.live(show)


def _versions(app: AppRow) -> str:
    window = app.windows.get(_ANSWERS_SECONDS)
    return shown.versions(app.version, window.version_shares() if window is not None else ())


def _outcomes(window: Window | None) -> None:
    if window is None or not window.outcomes:
        parts.text("No result in the last minutes.", "rl-sub")
        return
    for outcome, number in sorted(window.outcomes.items(), key=lambda pair: -pair[1]):
        with parts.box("rl-row"):
            parts.state(outcome)
            parts.text(f"{shown.count(number)} · {shown.percent(number / max(1, window.results))}", "rl-sub")


def _figure(title: str) -> Callable[[str, str], None]:
    with parts.card(title):
        number, words = parts.Field("rl-num"), parts.Field("rl-sub")

    def show(figure: str, said: str) -> None:
        number.show(figure)
        words.show(said)

    return show


def _longest(app: AppRow) -> Window | None:
    return app.windows[max(app.windows)] if app.windows else None
