"""One look as lines of text, for `rayline top --once`."""

from __future__ import annotations

from typing import Final

from deploy.cli.output import table
from deploy.observation import Snapshot
from deploy.top.panes import Pane, app_pane, cluster_pane, event_pane, node_pane
from deploy.top.summary import figures, head

_EVENTS: Final = 20


def plain(snapshot: Snapshot) -> str:
    """Everything that the panes show, whole: nothing is cut."""
    parts = [f"{head(snapshot).plain}\n{figures(snapshot).plain}"]
    if snapshot.stalls:
        parts.append("\n".join(f"! {stall.text}" for stall in snapshot.stalls))
    parts += [_pane(pane, snapshot) for pane in (app_pane(), cluster_pane(), node_pane(), event_pane())]
    return "\n\n".join(parts)


def _pane(pane: Pane, snapshot: Snapshot) -> str:
    rows = pane.shown(snapshot, pane.sorting, "")[: _EVENTS if pane.name == "events" else None]
    trouble = pane.trouble(snapshot)
    heading = f"{pane.name.value}: {trouble or pane.empty}" if trouble is not None or not rows else ""
    if not rows:
        return heading
    lines = table([column.title for column in pane.columns], [[str(column.cell(row)) for column in pane.columns] for row in rows])
    return f"{heading}\n{lines}" if heading else lines
