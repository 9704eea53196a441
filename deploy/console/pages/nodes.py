"""Clusters and nodes: states, weights and shares, one node's past, and the orders that a person may give it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from nicegui import ui

from deploy.console import charts, parts, shown
from deploy.console.frame import View, told
from deploy.observation.snapshot import ClusterRow, NodeRow, Snapshot

# A table of a thousand rows is worth sending only so often; what changes a state is sent at once.
_FEW_NODES: Final = 150
_MANY_NODES_MS: Final = 5_000
_FEW_CLUSTERS: Final = 6
_MOST_CLUSTERS: Final = 60
_RIGHT: Final = {"align": "right"}
_COLUMNS: Final[list[dict[str, Any]]] = [
    {"name": "key", "label": "Node", "field": "key", "align": "left", "sortable": True},
    {"name": "state", "label": "State", "field": "state", "align": "left", "sortable": True},
    {"name": "cpu", "label": "CPU", "field": "cpu", "sortable": True, **_RIGHT},
    {"name": "weight", "label": "Weight", "field": "weight", "sortable": True, **_RIGHT},
    {"name": "share", "label": "Share", "field": "share", "sortable": True, **_RIGHT},
    {"name": "in_flight", "label": "Batches there", "field": "in_flight", "sortable": True, **_RIGHT},
    {"name": "actors", "label": "Actors", "field": "actors", "sortable": True, **_RIGHT},
    {"name": "cpus", "label": "CPUs", "field": "cpus", "sortable": True, **_RIGHT},
    {"name": "beat", "label": "Heard", "field": "beat", "sortable": True, **_RIGHT},
    {"name": "reason", "label": "Reason", "field": "reason", "align": "left"},
]


def nodes(view: View) -> None:
    """Build the page."""
    parts.text("Clusters & nodes", "rl-h1", "h1")
    clusters = parts.box("rl-apps")
    with parts.card("Nodes") as card:
        with parts.box("rl-tools"):
            search = ui.input("Find: name, state, zone").props("dense outlined clearable").classes("rl-search rl-grow")
            counted = parts.Field("rl-sub")
        table = (
            ui.table(columns=_COLUMNS, rows=[], row_key="key", pagination={"rowsPerPage": 0, "sortBy": "key"})
            .props('virtual-scroll flat hide-bottom dense virtual-scroll-item-size=36 aria-label="Nodes"')
            .classes("rl-table")
        )
        table.add_slot("body-cell-state", parts.STATE_CELL)
        table.add_slot("body-cell-cpu", parts.METER_CELL)
        table.add_slot("body-cell-share", parts.SHARE_CELL)
        table.add_slot("body-cell-key", parts.OPEN_CELL)
        search.bind_value_to(table, "filter", lambda value: value or "")
        none = parts.box("")
        with none:
            parts.empty("No node reports itself", "A node is here a second after its agent starts.", "rayline up")
    dialog = _NodeDialog(view)
    table.on("open", lambda event: dialog.open(str(event.args)))
    told_states: dict[str, str] = {}
    sent_ms = 0

    def show(now: Snapshot) -> None:
        nonlocal told_states, sent_ms
        _show_clusters(clusters, now.clusters)
        present = [node for node in now.nodes if node.state != "gone"]
        none.set_visibility(not present)
        table.set_visibility(bool(present))
        counted.show(f"{len(present)} nodes")
        card.classes(**({"add": "rl-stale"} if now.nodes_stale or not now.answering else {"remove": "rl-stale"}))
        states = {node.key: node.state for node in present}
        if states == told_states and len(present) > _FEW_NODES and now.at_ms - sent_ms < _MANY_NODES_MS:
            return
        told_states, sent_ms = states, now.at_ms
        table.rows[:] = [_row(node) for node in present]
        table.update()
        dialog.refresh(now)

    view.live(show)


def _row(node: NodeRow) -> dict[str, Any]:
    return {
        "key": node.key,
        "state": node.state,
        "cpu": None if node.cpu is None else round(node.cpu, 2),
        "weight": None if node.weight is None else round(node.weight, 3),
        "share": None if node.share is None else round(node.share, 4),
        "in_flight": node.in_flight,
        "actors": node.actors,
        "cpus": node.cpus,
        "beat": f"{shown.seconds_ago(node.beat_seconds_ago)} ago",
        "reason": node.reason or node.note or "",
        "zone": node.zone,
    }


def _show_clusters(place: ui.element, clusters: tuple[ClusterRow, ...]) -> None:
    place.clear()
    place.classes(**({"add": "many"} if len(clusters) > _FEW_CLUSTERS else {"remove": "many"}))
    with place:
        for position, cluster in enumerate(clusters[:_MOST_CLUSTERS]):
            with parts.card():
                with parts.box("rl-row"):
                    with parts.box("rl-row").style("gap:.6rem"):
                        dot = parts.box("rl-dot")
                        dot.style(f"background:{charts.cluster_colour(position)};box-shadow:none")
                        parts.text(cluster.cluster, tag="strong")
                    parts.state(cluster.state)
                with parts.box("rl-row"):
                    parts.text(f"{shown.percent(cluster.share)}", "rl-num")
                    there = cluster.running_pods if cluster.running_pods is not None else sum(cluster.nodes.values())
                    wanted = "" if cluster.desired_pods is None else f" of {cluster.desired_pods}"
                    parts.text(f"{there}{wanted} pods · {shown.count(cluster.in_flight)} batches there", "rl-sub")
                for reason in cluster.reasons[:3]:
                    parts.text(reason, "rl-sub rl-warn")


class _NodeDialog:
    """One node, looked at closely. Owns the dialog; built when it opens, its facts kept fresh while it is open."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._key: str | None = None
        self._facts: ui.element | None = None
        with ui.dialog() as self._dialog, ui.card().style("width:44rem"):
            self._place = parts.box("rl-grid")
        self._dialog.on("hide", self._forget)

    def open(self, key: str) -> None:
        self._key = key
        self._fill(self._view.console.source.snapshot())
        self._dialog.open()

    def refresh(self, now: Snapshot) -> None:
        if self._key is None or not self._dialog.value or self._facts is None:
            return
        node = next((node for node in now.nodes if node.key == self._key), None)
        self._facts.clear()
        with self._facts:
            if node is None:
                parts.text("This node is gone.", "rl-sub")
            else:
                parts.state(node.state)
                parts.facts(_node_facts(node))

    def _forget(self) -> None:
        self._key = self._facts = None

    def _fill(self, now: Snapshot) -> None:
        node = next((node for node in now.nodes if node.key == self._key), None)
        self._place.clear()
        with self._place:
            if node is None:
                parts.empty(self._key or "", "This node is gone.")
                return
            parts.text(node.key, "rl-h1", "h2")
            self._facts = parts.box("rl-grid")
            with self._facts:
                parts.state(node.state)
                parts.facts(_node_facts(node))
            series = self._view.console.source.node_series(node.key)
            with parts.box("rl-grid rl-two"):
                for what in ("weight", "cpu"):
                    with parts.box(""):
                        parts.text(what.upper() if what == "cpu" else "Weight", "rl-title")
                        parts.Chart(charts.node_lines(series, what), "rl-chart low", says=f"{what} over time")
            lines = [event for event in now.events if event.subject == node.key][:8]
            if lines:
                parts.events(lines)
            with parts.box("rl-tools"):
                if self._view.session is not None:
                    self._orders(node)
                elif self._view.console.access.writable:
                    parts.text("Log in to cordon or drain.", "rl-sub")
                ui.space()
                ui.button("Close", on_click=self._dialog.close).props("flat")

    def _orders(self, node: NodeRow) -> None:
        desk = self._view.console.desk
        cordoned = node.state == "cordoned"
        ui.button(
            "Uncordon" if cordoned else "Cordon",
            on_click=lambda: self._order(lambda author: desk.cordon(node.key, cordoned=not cordoned, author=author)),
        ).props("outline")
        sure = ui.checkbox("I mean it")
        drain = ui.button("Drain", on_click=lambda: self._order(lambda author: desk.drain(node.key, author=author)))
        drain.props("outline color=negative").bind_enabled_from(sure, "value")

    async def _order(self, give: Callable[[str], Awaitable[str]]) -> None:
        author = self._view.author()
        if author is None:
            return
        with told():
            ui.notify(await give(author), type="positive")


def _node_facts(node: NodeRow) -> list[tuple[str, str]]:
    known = [
        ("Zone", node.zone),
        ("Reason", node.reason),
        ("Age", shown.seconds_ago(node.age_seconds)),
        ("Heard", f"{node.beat_seconds_ago:.1f} s ago, every {node.interval_seconds:g} s"),
        ("CPU", f"{shown.percent(node.cpu)} its own, {shown.percent(node.host_cpu)} of the machine under it"),
        ("Weight", f"{node.weight:.3f}, {shown.percent(node.share)} of all" if node.weight is not None else None),
        ("Works on", f"{shown.count(node.in_flight)} batches, {shown.count(node.jobs_in_flight)} jobs"),
        ("Apps", ", ".join(node.apps) or None),
        ("Cards", ", ".join(node.cards) or None),
        ("Note", node.note),
    ]
    return [(name, value) for name, value in known if value]
