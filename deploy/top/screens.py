"""Windows over the panes: a question before an order, help, and everything about one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS: Sequence[tuple[str, str]] = (
    ("1 2 3 4", "apps, clusters, nodes, events"),
    ("tab", "the next pane"),
    ("z", "one pane alone, or all where there is room"),
    ("↑ ↓ PgUp PgDn", "move"),
    ("enter", "everything that is known of the row"),
    ("/", "filter the pane; esc takes the filter away"),
    ("< >", "sort by the column before or after"),
    ("r", "sort the other way round"),
    ("w", "apps: over 10 s, 1 min or 15 min"),
    ("a", "nodes: also those that are gone"),
    ("d", "drain the node: for good, it asks first"),
    ("c", "cordon the node or lift that: it asks first"),
    ("!", "everything that has stopped making progress"),
    ("space", "hold the picture still, or let it go on"),
    ("?", "this help"),
    ("q", "quit"),
)


class Confirm(ModalScreen[bool]):
    """Asks once; the answer is True only for `y`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "dismiss(True)", "Yes"),
        ("n,escape,q,enter", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str, consequence: str) -> None:
        super().__init__()
        self._question = question
        self._consequence = consequence

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(Text(self._question, style="bold"))
            yield Static(Text(self._consequence))
            yield Static(Text.assemble(("y", "bold reverse"), " yes   ", ("n", "bold reverse"), " no"), classes="keys")


class Page(ModalScreen[None]):
    """Something to read; any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,enter,question_mark,exclamation_mark", "dismiss", "Close")]

    def __init__(self, title: str, body: Table | Text) -> None:
        super().__init__()
        self._title = title
        self._body = body

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="window page") as window:
            window.border_title = self._title
            window.border_subtitle = "esc closes"
            yield Static(self._body)


def help_page() -> Page:
    return Page("keys", pairs(KEYS))


def details_page(title: str, fields: Mapping[str, Any]) -> Page:
    return Page(title, pairs([(name.replace("_", " "), _plain(value)) for name, value in fields.items()]))


def pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, Text(text))
    return table


def _plain(value: Any) -> str:
    """Nested values on lines of their own."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_flat(one)}" for name, one in value.items()) or "–"
    if isinstance(value, list | tuple):
        return "\n".join(_flat(one) for one in value) or "–"
    return _flat(value)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {_flat(one)}" for name, one in value.items())
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
