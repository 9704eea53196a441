"""`rayline top`: the panes, their keys, and the orders that they give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import ClassVar, Final, Protocol

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.widgets import Footer, Input, Static

from deploy.observation import NodeRow, Series, Snapshot
from deploy.observation.latency import WINDOWS
from deploy.top.orders import Orders
from deploy.top.pane_view import PaneView
from deploy.top.panes import PaneName, app_pane, cluster_pane, event_pane, node_pane
from deploy.top.screens import Confirm, Page, details_page, help_page, pairs
from deploy.top.summary import alarms, chart, figures, head
from rayline.errors import RaylineError
from scheduler.view import Standing

# From here on there is room for all panes at once.
ROOMY_ROWS: Final = 40
ROOMY_COLUMNS: Final = 100
_CHART_ROWS: Final = 5
_NAMES: Final = tuple(PaneName)


class Seen(Protocol):
    """What is looked at: `deploy.observation.Observation`, or a test's own."""

    def subscribe(self) -> AsyncIterator[Snapshot]: ...

    def series(self, app: str | None = None, seconds: int = 900) -> Series: ...


class TopApp(App[None]):
    """Owns the screen. Does not own the observation nor what becomes of an order.

    Life: `run_async` → keys → `q`. What ends the observation ends it, too, and comes out of `run_async`.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "rayline top"
    CSS = """
    Screen { layout: vertical; }
    #head, #figures { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #alarms, #chart { height: auto; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #panes { height: 1fr; }
    #upper { height: auto; max-height: 35%; }
    .pane { border: round $surface-lighten-2; height: 1fr; border-title-color: $text-muted; }
    .pane:focus-within { border: round $accent; border-title-color: $accent; border-title-style: bold; }
    .pane DataTable { height: 1fr; background: $background; }
    .pane .note { height: auto; padding: 0 1; display: none; }
    .roomy #upper .pane { height: auto; max-height: 100%; min-height: 5; }
    .roomy #upper .pane DataTable { height: auto; }
    .roomy #pane-apps { width: 3fr; }
    .roomy #pane-clusters { width: 2fr; }
    .roomy #pane-events { height: 30%; }
    .narrow #upper { height: auto; max-height: 100%; }
    .narrow .hidden { display: none; }
    .narrow #upper.whole { height: 1fr; }
    #filter { display: none; height: 1; border: none; padding: 0 1; background: $boost; }
    #filter.asking { display: block; }
    Confirm, Page { align: center middle; background: $background 60%; }
    .window { width: auto; max-width: 90%; height: auto; max-height: 90%; padding: 1 2; }
    .window { border: round $accent; background: $surface; }
    .window Static { width: auto; max-width: 100%; }
    .page { width: 90%; max-width: 110; padding: 0 2; }
    .page Static { width: 1fr; }
    .window .keys { margin-top: 1; }
    Footer { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "pane('apps')", "Apps"),
        Binding("2", "pane('clusters')", "Clusters"),
        Binding("3", "pane('nodes')", "Nodes"),
        Binding("4", "pane('events')", "Events"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("d", "drain", "Drain"),
        Binding("c", "cordon", "Cordon"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("tab", "next_pane(1)", show=False, priority=True),
        Binding("shift+tab", "next_pane(-1)", show=False, priority=True),
        Binding("escape", "unfilter", show=False),
        Binding("less_than_sign", "sort(-1)", show=False),
        Binding("greater_than_sign", "sort(1)", show=False),
        Binding("r", "reverse", show=False),
        Binding("w", "window", show=False),
        Binding("a", "left_too", show=False),
        Binding("z", "zoom", show=False),
        Binding("space", "hold", show=False),
        Binding("exclamation_mark", "stalls", show=False),
    ]

    def __init__(self, seen: Seen, orders: Orders) -> None:
        super().__init__()
        self._seen = seen
        self._orders = orders
        self._snapshot: Snapshot | None = None
        self._window = WINDOWS[0]
        self._left_too = False
        self._zoomed = False
        self._held = False
        self._active = PaneName.APPS

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="figures")
        yield Static(id="alarms")
        yield Static(id="chart")
        with Vertical(id="panes"):
            with Horizontal(id="upper"):
                yield PaneView(app_pane(self._window))
                yield PaneView(cluster_pane())
            yield PaneView(node_pane())
            yield PaneView(event_pane())
        yield Input(id="filter", placeholder="shown are rows that hold …", compact=True)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        self._arrange()
        self.run_worker(self._follow(), name="observation", exit_on_error=True)

    def on_resize(self, _: Resize) -> None:
        self._arrange()
        self._show_head()

    def action_pane(self, name: str) -> None:
        self._active = PaneName(name)
        self._arrange()

    def action_next_pane(self, step: int) -> None:
        self.action_pane(_NAMES[(_NAMES.index(self._active) + step) % len(_NAMES)])

    def action_zoom(self) -> None:
        self._zoomed = not self._zoomed
        self._arrange()

    def action_filter(self) -> None:
        asked = self.query_one("#filter", Input)
        asked.value = self._view().wanted
        asked.add_class("asking")
        asked.focus()

    def action_unfilter(self) -> None:
        self._end_filter()
        self._view().filter_by("")

    def on_input_changed(self, event: Input.Changed) -> None:
        self._view().filter_by(event.value.strip())

    def on_input_submitted(self) -> None:
        self._end_filter()

    def action_sort(self, step: int) -> None:
        self._view().sort_by(step=step)

    def action_reverse(self) -> None:
        self._view().sort_by(reverse=True)

    def action_window(self) -> None:
        self._window = WINDOWS[(WINDOWS.index(self._window) + 1) % len(WINDOWS)]
        self._view(PaneName.APPS).use(app_pane(self._window))

    def action_left_too(self) -> None:
        self._left_too = not self._left_too
        self._view(PaneName.NODES).use(node_pane(self._left_too))

    def action_hold(self) -> None:
        self._held = not self._held
        self._show_head()

    def action_help(self) -> None:
        self.push_screen(help_page())

    def action_stalls(self) -> None:
        stalls = self._snapshot.stalls if self._snapshot is not None else ()
        body = pairs([(stall.subject, stall.text) for stall in stalls]) if stalls else Text("Everything moves.")
        self.push_screen(Page("what has stopped making progress", body))

    def on_data_table_row_selected(self) -> None:
        row = self._view().selected
        if row is not None:
            self.push_screen(details_page(self._view().pane.key(row), asdict(row)))

    def action_drain(self) -> None:
        node = self._node()
        if node is not None:
            self._order(
                f"Drain {node.key}?",
                "It finishes or hands back its work and ends. That cannot be taken back; cordon keeps work away for a while.",
                lambda: self._orders.drain(node.key),
                f"{node.key} drains",
            )

    def action_cordon(self) -> None:
        node = self._node()
        if node is None:
            return
        lift = node.state == Standing.CORDONED.value
        self._order(
            f"{'Uncordon' if lift else 'Cordon'} {node.key}?",
            "It gets new work again."
            if lift
            else "It gets no new work until that is lifted (c again); what runs there ends there.",
            lambda: self._orders.cordon(node.key, not lift),
            f"{node.key} gets {'new work again' if lift else 'no new work'}",
        )

    async def _follow(self) -> None:
        async for snapshot in self._seen.subscribe():
            if not self._held:
                self._snapshot = snapshot
                self._show_head()
                for view in self.query(PaneView):
                    view.show(snapshot)

    def _order(self, question: str, consequence: str, give: Callable[[], Awaitable[None]], done: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._give(give, done), name="order")

        self.push_screen(Confirm(question, consequence), answered)

    async def _give(self, give: Callable[[], Awaitable[None]], done: str) -> None:
        try:
            await give()
        except RaylineError as error:
            self.notify(str(error), title="not done", severity="error", timeout=15)
        else:
            self.notify(done)

    def _node(self) -> NodeRow | None:
        """The node under the cursor; orders are given to what one sees."""
        row = self._view().selected if self._active is PaneName.NODES else None
        if isinstance(row, NodeRow):
            return row
        self.notify("choose a node first: 3, then ↑ and ↓", severity="warning")
        return None

    def _view(self, name: PaneName | None = None) -> PaneView:
        return self.query_one(f"#pane-{(name or self._active).value}", PaneView)

    def _end_filter(self) -> None:
        asked = self.query_one("#filter", Input)
        asked.remove_class("asking")
        self._view().table.focus()

    def _arrange(self) -> None:
        """All panes where there is room, else the active one alone."""
        roomy = self.size.height >= ROOMY_ROWS and self.size.width >= ROOMY_COLUMNS and not self._zoomed
        panes = self.query_one("#panes")
        panes.set_class(roomy, "roomy")
        panes.set_class(not roomy, "narrow")
        for name in PaneName:
            self._view(name).set_class(not roomy and name is not self._active, "hidden")
        upper = self._active in (PaneName.APPS, PaneName.CLUSTERS)
        self.query_one("#upper").set_class(not roomy and upper, "whole")
        self.query_one("#chart").display = self.size.height >= ROOMY_ROWS
        view = self._view()
        view.table.focus()
        if self._snapshot is not None:
            self.call_after_refresh(view.show, self._snapshot)

    def _show_head(self) -> None:
        snapshot = self._snapshot
        if snapshot is None:
            self.query_one("#head", Static).update("reading …")
            return
        first = head(snapshot)
        if self._held:
            first = Text.assemble(("HELD: space lets it go on ", "bold reverse yellow"), first)
        self.query_one("#head", Static).update(first)
        self.query_one("#figures", Static).update(figures(snapshot))
        lines = alarms(snapshot)
        told = self.query_one("#alarms", Static)
        told.display = bool(lines)
        told.update(Text("\n").join(lines))
        if self.size.height >= ROOMY_ROWS:
            width = self.size.width - 2
            drawn = chart(self._seen.series(None, min(900, width)), width, _CHART_ROWS)
            self.query_one("#chart", Static).update(Text("\n").join(drawn))
