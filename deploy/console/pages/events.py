"""The event log: what happened to parts of the platform, and what people changed."""

from __future__ import annotations

from typing import Any, Final

from nicegui import ui

from deploy.console import parts, shown
from deploy.console.frame import View
from deploy.observation.snapshot import Snapshot

_COLUMNS: Final[list[dict[str, Any]]] = [
    {"name": "time", "label": "Time", "field": "time", "align": "left"},
    {"name": "kind", "label": "Kind", "field": "kind", "align": "left"},
    {"name": "subject", "label": "About", "field": "subject", "align": "left"},
    {"name": "text", "label": "What happened", "field": "text", "align": "left", "style": "white-space:normal"},
    {"name": "reason", "label": "Why", "field": "reason", "align": "left", "style": "white-space:normal"},
    {"name": "source", "label": "Says", "field": "source", "align": "left"},
]


def events(view: View) -> None:
    """Build the page."""
    parts.text("Events", "rl-h1", "h1")
    with parts.card():
        with parts.box("rl-tools"):
            search = ui.input("Find: node, kind, word").props("dense outlined clearable").classes("rl-search rl-grow")
        table = ui.table(columns=_COLUMNS, rows=[], row_key="offset", pagination={"rowsPerPage": 0})
        table.props('flat hide-bottom dense virtual-scroll aria-label="Events"').classes("rl-table")
        search.bind_value_to(table, "filter", lambda value: value or "")
        none = parts.box("")
        with none:
            parts.empty("Nothing yet", "Nodes that come and go, and changes that people make, are told here.")
    newest: int | None = None

    def show(now: Snapshot) -> None:
        nonlocal newest
        none.set_visibility(not now.events)
        table.set_visibility(bool(now.events))
        offset = now.events[0].offset if now.events else None
        if offset == newest:
            return
        newest = offset
        table.rows[:] = [
            {
                "offset": event.offset,
                "time": shown.moment(event.at_ms),
                "kind": event.kind,
                "subject": event.subject,
                "text": event.text,
                "reason": event.reason or "",
                "source": event.source,
            }
            for event in now.events
        ]
        table.update()

    view.live(show)
