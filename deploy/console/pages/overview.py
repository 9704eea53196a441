"""The overview: whether the promise is kept, how much comes and goes, how long it takes, and what happened."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nicegui import ui

from deploy.console import charts, parts, shown
from deploy.console.frame import View
from deploy.observation.snapshot import AppRow, NodeRow, Snapshot, Window

SPAN_SECONDS = 600
_GOOD_SHARE = 0.999
_FAIR_SHARE = 0.99
_EVENTS = 8
_LAGGING = 2


def overview(view: View) -> None:
    """Build the page."""
    source = view.console.source
    none = parts.box("rl-card")
    with none:
        parts.empty(
            "No app is deployed yet",
            "An app's promise, rate and latencies stand here once there is one.",
            "rayline deploy app.yaml",
        )
    unknown = parts.box("rl-card")
    with unknown:
        parts.empty("Nothing is known yet", "As soon as Kafka answers, the platform stands here.", "rayline status")
    with parts.box("rl-grid rl-hero") as hero:
        with parts.card("Kept promises"):
            with parts.box("rl-big"):
                number = parts.Field("")
                parts.text("%", tag="small")
            with parts.box("rl-bar"):
                bar = parts.box("")
            explained = parts.Field("rl-sub")
        with parts.box("rl-grid rl-stats"):
            rate = _Stat("Throughput")
            p99 = _Stat("p99, last 10 s")
            with parts.card("Lag"):
                lag, lag_words, lag_lines = parts.Field("rl-num"), parts.Field("rl-sub"), parts.box("rl-lines")
            with parts.card("Nodes"):
                nodes, node_words, bar_of_states = parts.Field("rl-num"), parts.Field("rl-sub"), parts.box("rl-states")
    with parts.box("rl-grid rl-wide") as middle:
        with parts.card("Latency", hint="last 10 min · ▼ a node was taken away"):
            latency = parts.Chart(
                charts.latency(source.series(None, SPAN_SECONDS), None),
                "rl-chart tall",
                says="Latencies over the last ten minutes",
            )
        with parts.card("Results a second"):
            through = parts.Chart(
                charts.throughput(source.series(None, SPAN_SECONDS)),
                "rl-chart tall",
                says="Results a second over the last ten minutes",
            )
    with parts.box("rl-grid rl-three") as lower:
        with parts.card("Fleet", hint="one square a node"):
            fleet = parts.Chart(charts.fleet((), 1), "rl-chart low fill", says="State of every node")
            fleet_words = parts.Field("rl-sub")
        with parts.card("Clusters' share of the work"):
            share = parts.Chart(charts.shares(()), "rl-chart low fill", says="Share of each cluster over time")
        with parts.card("What happened"):
            log = parts.box("")
    last_event: object = None
    last_look = -1

    def show(now: Snapshot) -> None:
        nonlocal last_event, last_look
        apps = bool(now.apps)
        none.set_visibility(not apps and now.answering and now.caught_up)
        hero.set_visibility(apps)
        middle.set_visibility(apps)
        known = bool(now.nodes or now.events or apps)
        lower.set_visibility(known)
        unknown.set_visibility(not known and not now.answering)
        if apps:
            window = widest(now.apps)
            kept = attainment(window)
            tone = "" if kept is None else "good" if kept >= _GOOD_SHARE else "warn" if kept >= _FAIR_SHARE else "bad"
            number.show(shown.attainment(kept), tone)
            bar.style(f"width:{(kept or 0):.2%};background:var(--{tone or 'muted'})")
            explained.show(_explained(now.apps, window))
            series = source.series(None, SPAN_SECONDS)
            recent = [app.recent for app in now.apps if app.recent is not None]
            rates = [app.rate_out for app in now.apps if app.rate_out is not None]
            points = charts.thinned(series.points, 100)
            rate.show(
                f"{shown.count(sum(rates) if rates else None)}/s",
                _incoming(now.apps),
                [(p.second, p.results) for p in points],
                charts.GOOD,
            )
            slowest = max((window.p99_ms for window in recent if window.p99_ms is not None), default=None)
            middle_ms = max((window.p50_ms for window in recent if window.p50_ms is not None), default=None)
            p99.show(
                shown.milliseconds(slowest),
                f"p50 {shown.milliseconds(middle_ms)}",
                [(p.second, p.p99_ms) for p in points],
                "#c561e0",
            )
            lags = [app.lag for app in now.apps if app.lag is not None]
            letters = sum(app.dead_letters or 0 for app in now.apps)
            lag.show(shown.count(sum(lags) if lags else None))
            lag_words.show(f"jobs wait · {shown.count(letters)} dead letters")
            lag_lines.clear()
            with lag_lines:
                for app in sorted(now.apps, key=lambda app: -(app.lag or 0))[:_LAGGING]:
                    with parts.box("rl-row"):
                        parts.text(app.app, tag="span")
                        parts.text(shown.count(app.lag), tag="span")
            latency.show(charts.latency(series, min(app.sla_seconds for app in now.apps) * 1000))
            through.show(charts.throughput(series))
        present = [node for node in now.nodes if node.state != "gone"]
        ready = sum(node.state == "ready" for node in present)
        nodes.show(shown.count(ready))
        node_words.show(f"ready of {len(present)} in {len(now.clusters)} clusters")
        _show_states(bar_of_states, present)
        fleet.show(charts.fleet(present[:2000], max(8, math.ceil(math.sqrt(len(present) * 2.4)))))
        fleet_words.show(_states(now))
        look = max(
            (past.points[-1].at_ms for cluster in now.clusters if (past := source.node_series(cluster.cluster)).points),
            default=0,
        )
        if look != last_look:
            last_look = look
            share.show(charts.shares([source.node_series(cluster.cluster) for cluster in now.clusters[:20]]))
        newest = now.events[0].offset if now.events else None
        if newest != last_event or log.default_slot.children == []:
            last_event = newest
            log.clear()
            with log:
                if now.events:
                    parts.events(now.events[:_EVENTS])
                else:
                    parts.empty("Nothing yet", "Nodes that come and go, and changes that people make, are told here.")

    view.live(show)


class _Stat:
    """One figure with its words and its last minutes as a line."""

    def __init__(self, title: str) -> None:
        with parts.card(title):
            self._number = parts.Field("rl-num")
            self._words = parts.Field("rl-sub")
            self._spark = parts.Chart(charts.sparkline((), charts.ACCENT), "rl-spark", says=f"{title} over the last ten minutes")

    def show(self, number: str, words: str, line: list[tuple[int, float | None]], colour: str) -> None:
        self._number.show(number)
        self._words.show(words)
        self._spark.show(charts.sparkline([(second * 1000, value) for second, value in line], colour))


def _show_states(place: ui.element, nodes: Sequence[NodeRow]) -> None:
    counted: dict[str, int] = {}
    for node in nodes:
        counted[node.state] = counted.get(node.state, 0) + 1
    place.clear()
    with place:
        for state, colour in charts.STATES.items():
            if state in counted:
                parts.box("").style(f"flex:{counted[state]};background:{colour}")


def widest(apps: tuple[AppRow, ...]) -> Window | None:
    """All apps' longest windows as one; latencies are not merged."""
    windows = [app.windows[max(app.windows)] for app in apps if app.windows]
    if not windows:
        return None
    outcomes: dict[str, int] = {}
    for window in windows:
        for outcome, number in window.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + number
    results, sampled = sum(window.results for window in windows), sum(window.sampled for window in windows)
    return Window(windows[0].seconds, results, sampled, outcomes, sum(window.misses for window in windows), None, None, None)


def attainment(window: Window | None) -> float | None:
    """The share of results that came within the promise; None without any."""
    return None if window is None or not window.results else 1 - window.misses / window.results


def _explained(apps: tuple[AppRow, ...], window: Window | None) -> str:
    promises = sorted({app.sla_seconds for app in apps})
    within = f"{promises[0]:g} s" if len(promises) == 1 else f"{promises[0]:g} to {promises[-1]:g} s"
    if window is None or not window.results:
        return f"No result lately; each is promised within {within}."
    late = f"{shown.count(window.misses)} late" if window.misses else "none late"
    about = "" if window.exact else "about "
    return f"of {about}{shown.count(window.results)} results within {within}, {late}, last {window.seconds / 60:g} min"


def _incoming(apps: tuple[AppRow, ...]) -> str:
    rates = [app.rate_in for app in apps if app.rate_in is not None]
    return f"{shown.count(round(sum(rates), 1))}/s come in" if rates else "what comes in is not known"


def _states(now: Snapshot) -> str:
    counted: dict[str, int] = {}
    for node in now.nodes:
        counted[node.state] = counted.get(node.state, 0) + 1
    return " · ".join(f"{number} {state}" for state, number in counted.items()) or "No node reports itself."
