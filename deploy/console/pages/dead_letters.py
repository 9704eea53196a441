"""Dead letters of an app: why they are there, replaying them, and, for who is logged in, what is in them."""

from __future__ import annotations

from typing import Any, Final

from nicegui import ui

from deploy.console import parts, shown
from deploy.console.desk import Letters
from deploy.console.frame import View, told
from deploy.dead_letters import DeadLetter

_COLUMNS: Final[list[dict[str, Any]]] = [
    {"name": "letter", "label": "Letter", "field": "letter", "align": "left"},
    {"name": "time", "label": "Since", "field": "time", "align": "left"},
    {"name": "reason", "label": "Reason", "field": "reason", "align": "left"},
    {"name": "job", "label": "Job", "field": "job", "align": "left"},
    {"name": "key", "label": "Key", "field": "key", "align": "left"},
    {"name": "source", "label": "Record", "field": "source", "align": "left"},
    {"name": "bytes", "label": "Bytes", "field": "bytes", "align": "right"},
]


def dead_letters(view: View, app: str | None) -> None:
    """Build the page."""
    parts.text("Dead letters", "rl-h1", "h1")
    names = [row.app for row in view.console.source.snapshot().apps]
    if not names:
        with parts.box("rl-card"):
            parts.empty("No app is deployed", "Dead letters belong to an app.", "rayline deploy app.yaml")
        return
    _Page(view, names, app if app is not None and app in names else names[0])


class _Page:
    """Owns the page's elements and the letters that are shown on it."""

    def __init__(self, view: View, names: list[str], app: str) -> None:
        self._view = view
        self._letters: dict[str, DeadLetter] = {}
        with parts.card():
            with parts.box("rl-tools"):
                self._app = ui.select(names, value=app, label="App", on_change=self.load).props("dense outlined")
                ui.button("Read again", icon="refresh", on_click=self.load).props("flat")
                ui.space()
                self._say = parts.Field("rl-sub")
                self._replay = ui.button("Replay chosen", icon="replay", on_click=self._ask).props("unelevated")
                self._replay.set_visibility(view.session is not None)
            self._table = ui.table(
                columns=_COLUMNS,
                rows=[],
                row_key="letter",
                selection="multiple" if view.session else None,
                pagination={"rowsPerPage": 0},
            )
            self._table.props("flat hide-bottom dense virtual-scroll").classes("rl-table")
            self._table.add_slot("body-cell-letter", parts.OPEN_CELL)
            self._table.on("open", lambda event: self._look(str(event.args)))
            self._empty = parts.box("")
            with self._empty:
                parts.empty("No dead letter", "Every job that came could be accepted.")
        with ui.dialog() as self._dialog, ui.card().style("width:40rem"):
            self._inside = parts.box("rl-grid")
        ui.timer(0.05, self.load, once=True)

    async def load(self) -> None:
        with told():
            found: Letters = await self._view.console.desk.dead_letters(str(self._app.value))
            self._letters = {dead.letter: dead for dead in found.letters}
            self._table.rows[:] = [_row(dead) for dead in found.letters]
            self._table.selected.clear()
            self._table.update()
            self._table.set_visibility(bool(self._letters))
            self._empty.set_visibility(not self._letters)
            more = f", {shown.count(found.left_out)} older ones are not shown" if found.left_out else ""
            self._say.show(f"{len(self._letters)} letters{more}")

    def _look(self, letter: str) -> None:
        dead = self._letters.get(letter)
        if dead is None:
            return
        whole = dead.as_dict(whole=True)
        self._inside.clear()
        with self._inside:
            parts.text(f"Letter {letter}", "rl-h1", "h2")
            parts.facts(
                [
                    ("Reason", whole["reason"] or shown.NOTHING),
                    ("Record", whole["source"] or shown.NOTHING),
                    ("Since", whole["time"] or shown.NOTHING),
                    ("Job", shown.readable((whole["job_id"] or shown.NOTHING).encode())),
                    ("Key", shown.readable(dead.record.key)),
                ]
            )
            parts.text("Headers", "rl-title")
            parts.facts([(shown.readable(name.encode(), 80), shown.readable(raw)) for name, raw in dead.record.headers])
            parts.text("Payload", "rl-title")
            place = parts.box("")
            with place:
                parts.text(f"{whole['bytes']} bytes, hidden: it may hold what is not for every eye.", "rl-sub")
                if self._view.session is not None:
                    ui.button("Show it (this is noted)", on_click=lambda: self._reveal(dead, place)).props("outline dense")
            with parts.box("rl-tools"):
                ui.space()
                ui.button("Close", on_click=self._dialog.close).props("flat")
        self._dialog.open()

    async def _reveal(self, dead: DeadLetter, place: ui.element) -> None:
        author = self._view.author()
        if author is None:
            return
        with told():
            await self._view.console.desk.reveal(str(self._app.value), dead.letter, author=author)
            place.clear()
            with place:
                parts.text(shown.readable(dead.record.value, 4000), "rl-mono")

    async def _ask(self) -> None:
        letters = [str(row["letter"]) for row in self._table.selected]
        if self._view.author() is None:
            return
        if not letters:
            ui.notify("Choose letters first.", type="warning")
            return
        with ui.dialog() as sure, ui.card():
            parts.text(f"Submit {len(letters)} of {self._app.value} again?", "rl-h1", "h2")
            parts.text("Each becomes a new job; the letters stay in the topic, and one replayed twice is two jobs.", "rl-sub")
            with parts.box("rl-tools"):
                ui.button("Submit again", on_click=lambda: sure.submit(True)).props("unelevated")
                ui.button("Cancel", on_click=lambda: sure.submit(False)).props("flat")
        # A session may have ended while the question stood there.
        if await sure and (author := self._view.author()) is not None:
            with told():
                done = await self._view.console.desk.replay(str(self._app.value), letters, author=author)
                ui.notify(f"{len(done)} submitted again", type="positive")
        sure.delete()


def _row(dead: DeadLetter) -> dict[str, Any]:
    known = dead.as_dict(whole=False)
    return {
        "letter": dead.letter,
        "time": known["time"] or "",
        "reason": shown.readable((known["reason"] or "").encode(), 200),
        "job": shown.readable((known["job_id"] or "").encode(), 120),
        "key": shown.readable(dead.record.key, 120),
        "source": known["source"] or "",
        "bytes": known["bytes"],
    }
