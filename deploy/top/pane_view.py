"""One pane on the screen: a table that keeps its place while what it shows changes."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from deploy.observation import Snapshot
from deploy.top.panes import Pane, Sorting

# Two characters of border and one for the scroll bar.
_FRAME_CHARS: Final = 4
MAX_ROWS: Final = 2_000


class Rows(DataTable[Text]):
    """A table of which whole rows are chosen: its ends are the first and the last."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
    ]


class PaneView(Vertical):
    """Owns the table of one pane, how it is sorted and filtered, and on which row the cursor stands.

    Does not own the snapshot. Life: mounted → `show` for each snapshot, `sort_by`, `filter_by` at any time.
    """

    def __init__(self, pane: Pane) -> None:
        super().__init__(id=f"pane-{pane.name.value}", classes="pane")
        self.pane = pane
        self.sorting = pane.sorting
        self.wanted = ""
        self._snapshot: Snapshot | None = None
        self._rows: dict[str, Any] = {}
        self._cells: dict[str, list[Text]] = {}
        self._layout: tuple[tuple[int, ...], int, Sorting] | None = None

    def compose(self) -> ComposeResult:
        yield Rows(cursor_type="row", zebra_stripes=True, cell_padding=1)
        yield Static(classes="note")

    def on_mount(self) -> None:
        self.watch(self.table, "scroll_y", self._update, init=False)

    @property
    def table(self) -> Rows:
        return self.query_one(Rows)

    @property
    def selected(self) -> Any | None:
        """The row under the cursor; None where there is none."""
        keys = list(self._rows)
        return self._rows[keys[self.table.cursor_row]] if 0 <= self.table.cursor_row < len(keys) else None

    def use(self, pane: Pane) -> None:
        """Other rows or figures in the same columns."""
        self.pane = pane
        self._redraw()

    def sort_by(self, *, step: int = 0, reverse: bool = False) -> None:
        """The column before (-1) or after (+1), or the other way round."""
        columns = list(self._layout[0]) if self._layout is not None else list(range(len(self.pane.columns)))
        at = columns.index(self.sorting.column) if self.sorting.column in columns else 0
        column = columns[(at + step) % len(columns)]
        # Of figures one looks for the largest, of names for the first.
        descending = self.pane.columns[column].right if step else self.sorting.descending
        self.sorting = Sorting(column, descending != reverse)
        self._redraw()

    def filter_by(self, wanted: str) -> None:
        self.wanted = wanted
        self._redraw()

    def show(self, snapshot: Snapshot) -> None:
        """The rows of this snapshot."""
        self._snapshot = snapshot
        self._redraw()

    def on_resize(self) -> None:
        self._redraw()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        assert self._layout is not None
        column = self._layout[0][event.column_index]
        same = column == self.sorting.column
        self.sorting = Sorting(column, not self.sorting.descending if same else self.pane.columns[column].right)
        self._redraw()

    def _redraw(self) -> None:
        if self._snapshot is None or not self.is_mounted or not self.display:
            return
        found = self.pane.shown(self._snapshot, self.sorting, self.wanted)
        rows = {self.pane.key(row): row for row in found[:MAX_ROWS]}
        self._title(len(found), len(self.pane.rows(self._snapshot)))
        self._note(bool(rows))
        chosen, flexible = self.pane.fitting(max(20, self.size.width - _FRAME_CHARS + 2))
        layout = (tuple(chosen), flexible, self.sorting)
        if layout == self._layout and list(rows) == list(self._cells):
            self._rows = rows
            self._update()
        else:
            cells = {key: [self._cell(index, row, flexible) for index in chosen] for key, row in rows.items()}
            self._rebuild(layout, cells)
            self._rows, self._cells, self._layout = rows, cells, layout

    def _update(self) -> None:
        """Bring the rows that are seen up to date; of a thousand, the others follow when they come into sight."""
        if self._layout is None:
            return
        chosen, flexible, _ = self._layout
        table, top = self.table, int(self.table.scroll_y)
        columns = list(table.columns)
        for key in list(self._rows)[top : top + table.size.height]:
            line = [self._cell(index, self._rows[key], flexible) for index in chosen]
            for column, new, old in zip(columns, line, self._cells[key], strict=True):
                if new != old or new.spans != old.spans or new.style != old.style:
                    table.update_cell(key, column, new)
            self._cells[key] = line

    def _rebuild(self, layout: tuple[tuple[int, ...], int, Sorting], cells: dict[str, list[Text]]) -> None:
        table = self.table
        before = list(self._cells)
        at, scroll = table.cursor_row, table.scroll_y
        kept = before[at] if 0 <= at < len(before) else None
        columns_changed = layout != self._layout
        with self.app.batch_update():
            table.clear(columns=columns_changed)
            if columns_changed:
                for index in layout[0]:
                    column = self.pane.columns[index]
                    arrow = (" ▼" if self.sorting.descending else " ▲") if index == self.sorting.column else ""
                    title = (column.title + arrow)[: max(column.width, len(column.title))]
                    title = title if not arrow or title.endswith(arrow) else column.title[: max(1, column.width - 2)] + arrow
                    label = Text(title, justify="right" if column.right else "left")
                    table.add_column(label, key=str(index), width=layout[1] if column.flex else column.width)
            for key, line in cells.items():
                table.add_row(*line, key=key)
            # The cursor stays on its row; where that left, on its place.
            keys = list(cells)
            place = keys.index(kept) if kept in cells else min(at, len(keys) - 1)
            table.move_cursor(row=max(0, place), scroll=False)
            table.scroll_to(y=scroll, animate=False)

    def _cell(self, index: int, row: Any, flexible: int) -> Text:
        column = self.pane.columns[index]
        told = column.cell(row)
        text = told.copy() if isinstance(told, Text) else Text(told)
        text.truncate(flexible if column.flex else column.width, overflow="ellipsis")
        text.justify = "right" if column.right else "left"
        text.no_wrap = True
        return text

    def _title(self, shown: int, there: int) -> None:
        number = str(there) if shown == there else f"{shown} of {there}"
        self.border_title = f"{self.pane.title} ({number})"
        self.border_subtitle = f"/{self.wanted}" if self.wanted else ""

    def _note(self, any_rows: bool) -> None:
        assert self._snapshot is not None
        trouble = self.pane.trouble(self._snapshot)
        text = trouble or (None if any_rows else f"nothing here has {self.wanted!r} in it" if self.wanted else self.pane.empty)
        note = self.query_one(".note", Static)
        note.display = text is not None
        note.update(Text(text or "", style="bold red" if trouble is not None and trouble != "reading …" else "dim"))
