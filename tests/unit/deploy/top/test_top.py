"""`rayline top` driven by its keys, on a made-up platform."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual.pilot import Pilot
from textual.widgets import Static
from typer.testing import CliRunner

from deploy.cli import app as cli
from deploy.observation import AppRow, Window
from deploy.observation.model import BROKER
from deploy.top.app import TopApp
from deploy.top.pane_view import PaneView
from deploy.top.panes import PaneName, app_pane
from deploy.top.plain import plain
from deploy.top.screens import Confirm, Page
from rayline.errors import ConfigError, NodeError
from tests.support.staged_platform import StagedPlatform

SMALL, LARGE, WALL = (80, 24), (160, 50), (240, 60)


class RecordedOrders:
    """Remembers each order; refuses when told to."""

    def __init__(self) -> None:
        self.given: list[tuple[str, ...]] = []
        self.refusal: str | None = None

    async def drain(self, node: str) -> None:
        self._give("drain", node)

    async def cordon(self, node: str, cordoned: bool) -> None:
        self._give("cordon" if cordoned else "uncordon", node)

    def _give(self, *order: str) -> None:
        self.given.append(order)
        if self.refusal is not None:
            raise NodeError(self.refusal)


class Screen:
    """A running app with what a person sees of it."""

    def __init__(self, app: TopApp, pilot: Pilot[None], stage: StagedPlatform, orders: RecordedOrders) -> None:
        self.app, self.pilot, self.stage, self.orders = app, pilot, stage, orders

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(3):
            await self.pilot.pause()

    def pane(self, name: str) -> PaneView:
        return self.app.query_one(f"#pane-{name}", PaneView)

    def rows(self, name: str) -> list[list[str]]:
        table = self.pane(name).table
        return [[cell.plain for cell in table.get_row_at(index)] for index in range(table.row_count)]

    def first_column(self, name: str) -> list[str]:
        return [row[0] for row in self.rows(name)]

    def text(self, query: str) -> str:
        static = self.app.screen.query_one(query, Static)
        return str(static.visual) if static.display else ""

    def notes(self) -> list[str]:
        return [note.message for note in self.app._notifications]


@asynccontextmanager
async def shown(
    size: tuple[int, int] = SMALL, stage: StagedPlatform | None = None, orders: RecordedOrders | None = None
) -> AsyncIterator[Screen]:
    stage, orders = stage or StagedPlatform(), orders or RecordedOrders()
    app = TopApp(stage, orders)
    async with app.run_test(size=size) as pilot:
        screen = Screen(app, pilot, stage, orders)
        await screen.settle()
        yield screen


async def test_on_a_small_screen_one_pane_stands_alone_and_digits_choose_it() -> None:
    async with shown() as screen:
        for key, name in zip("1234", PaneName, strict=True):
            await screen.press(key)
            assert [view.pane.name for view in screen.app.query(PaneView) if view.region.area] == [name]
            assert screen.rows(name.value)
            assert screen.pane(name.value).region.bottom <= 23


async def test_on_a_large_screen_all_panes_and_the_chart_are_there() -> None:
    async with shown(LARGE) as screen:
        assert all(view.region.area for view in screen.app.query(PaneView))
        assert "▲" in screen.text("#chart")
        await screen.press("3", "z")
        assert [view.pane.name for view in screen.app.query(PaneView) if view.region.area] == [PaneName.NODES]


async def test_apps_tell_rates_lag_latency_misses_and_outcomes() -> None:
    async with shown(WALL) as screen:
        columns = [column.label.plain.split()[0] for column in screen.pane("apps").table.columns.values()]
        row = dict(zip(columns, screen.rows("apps")[0], strict=True))
        assert (row["APP"], row["IN/s"], row["LAG"], row["MISSED"]) == ("embed", "480", "12", "8")
        assert row["P99"].endswith(" ms")
        assert "late 8" in row["OUTCOMES"]
        assert screen.rows("apps")[1][columns.index("OUT/s")].startswith("~")


async def test_the_head_names_the_worst_latency_and_the_misses() -> None:
    async with shown() as screen:
        assert "10/12 nodes ready" in screen.text("#head")
        assert "toxicity (SLA 10 s)" in screen.text("#figures")
        assert "missed 8/min" in screen.text("#figures")


async def test_names_are_sorted_as_people_count() -> None:
    async with shown(stage=StagedPlatform(clusters=1, pods=11)) as screen:
        await screen.press("3")
        assert screen.first_column("nodes")[:3] == ["c1/c1-pod-1", "c1/c1-pod-2", "c1/c1-pod-3"]


async def test_keys_sort_by_the_next_column_and_the_other_way_round() -> None:
    async with shown() as screen:
        await screen.press("3", "greater_than_sign", "greater_than_sign")
        weights = [float(row[2]) for row in screen.rows("nodes")]
        assert weights == sorted(weights, reverse=True)
        assert "▼" in [column.label.plain for column in screen.pane("nodes").table.columns.values()][2]
        await screen.press("r")
        assert [float(row[2]) for row in screen.rows("nodes")] == sorted(weights)
        await screen.press("less_than_sign")
        states = [row[1] for row in screen.rows("nodes")]
        assert states == sorted(states)


async def test_a_filter_keeps_rows_that_hold_it_anywhere_and_escape_takes_it_away() -> None:
    async with shown() as screen:
        await screen.press("3", "slash", *"cordoned", "enter")
        assert screen.first_column("nodes") == ["c1/c1-pod-5"]
        assert "1 of 12" in str(screen.pane("nodes").border_title)
        await screen.press("escape")
        assert len(screen.rows("nodes")) == 12
        await screen.press("slash", *"nosuch")
        assert screen.rows("nodes") == []
        assert "'nosuch'" in screen.text("#pane-nodes .note")
        await screen.press("escape")
        assert len(screen.rows("nodes")) == 12


async def test_letters_in_the_filter_give_no_orders() -> None:
    async with shown() as screen:
        await screen.press("3", "slash", *"dcqz")
        assert not isinstance(screen.app.screen, Confirm)
        assert screen.app.is_running
        assert screen.orders.given == []


async def test_drain_asks_first_and_orders_only_after_yes() -> None:
    async with shown() as screen:
        await screen.press("3", "down", "d")
        assert isinstance(screen.app.screen, Confirm)
        assert "Drain c1/c1-pod-2?" in screen.text(".window Static")
        for refusal in ("n", "enter"):
            await screen.press(refusal)
            assert not isinstance(screen.app.screen, Confirm)
            await screen.press("d")
        assert screen.orders.given == []
        await screen.press("y")
        assert screen.orders.given == [("drain", "c1/c1-pod-2")]
        assert screen.notes() == ["c1/c1-pod-2 drains"]


async def test_cordon_of_a_cordoned_node_lifts_it() -> None:
    async with shown() as screen:
        await screen.press("3", "c", "y")
        await screen.press("down", "down", "down", "down", "c")
        assert "Uncordon c1/c1-pod-5?" in screen.text(".window Static")
        await screen.press("y")
        assert screen.orders.given == [("cordon", "c1/c1-pod-1"), ("uncordon", "c1/c1-pod-5")]


async def test_an_order_that_fails_says_why_and_the_view_goes_on() -> None:
    orders = RecordedOrders()
    orders.refusal = "the node c1/c1-pod-1 did not drain within 10 s"
    async with shown(orders=orders) as screen:
        await screen.press("3", "d", "y")
        assert screen.notes() == [orders.refusal]
        assert screen.app.is_running


async def test_an_order_needs_a_node_that_one_sees() -> None:
    async with shown() as screen:
        await screen.press("1", "d", "c")
        assert not isinstance(screen.app.screen, Confirm)
        assert screen.orders.given == []


async def test_the_cursor_stays_on_its_node_while_the_order_changes() -> None:
    async with shown() as screen:
        await screen.press("3", "down", "down")
        await screen.press("greater_than_sign", "greater_than_sign", "greater_than_sign")
        assert screen.pane("nodes").selected.key == "c1/c1-pod-3"
        screen.stage.after = 10
        screen.stage.beat(silent=["c1/c1-pod-1"])
        await screen.settle()
        assert screen.pane("nodes").selected.key == "c1/c1-pod-3"
        assert "suspect" in [row[1] for row in screen.rows("nodes")]


async def test_space_holds_the_picture_still() -> None:
    async with shown() as screen:
        await screen.press("3", "space")
        screen.stage.after = 10
        screen.stage.beat(silent=["c1/c1-pod-1"])
        await screen.settle()
        assert "HELD" in screen.text("#head")
        assert "suspect" not in [row[1] for row in screen.rows("nodes")]
        await screen.press("space")
        screen.stage.told()
        await screen.settle()
        assert "suspect" in [row[1] for row in screen.rows("nodes")]


async def test_enter_tells_everything_of_a_row_and_help_tells_the_keys() -> None:
    async with shown(LARGE) as screen:
        await screen.press("3", "enter")
        assert isinstance(screen.app.screen, Page)
        assert screen.app.screen.query_one(".page").border_title == "c1/c1-pod-1"
        await screen.press("escape", "question_mark")
        assert screen.app.screen.query_one(".page").border_title == "keys"
        await screen.press("escape")
        assert not isinstance(screen.app.screen, Page)


async def test_what_stopped_is_told_above_everything() -> None:
    stage = StagedPlatform()
    for stage.after in range(2, 41, 2):
        stage.model.source_read(BROKER, stage.now_ms)
    stage.beat()
    async with shown(stage=stage) as screen:
        assert "lane/embed/0 has said nothing for 40 s" in screen.text("#alarms")
        assert "▲ and" in screen.text("#alarms")
        await screen.press("exclamation_mark")
        assert isinstance(screen.app.screen, Page)
        told = [stall.text for stall in stage.snapshot().stalls]
        assert any("jobs lie in 4 of 4 partitions of embed" in text for text in told)


async def test_a_broker_that_does_not_answer_is_told_and_ends_nothing() -> None:
    stage = StagedPlatform()
    stage.after = 5
    async with shown(stage=stage) as screen:
        assert "no Kafka broker answers at 127.0.0.1:9092" in screen.text("#alarms")
        assert len(screen.rows("apps")) == 3
        stage.model.source_read(BROKER, stage.now_ms)
        stage.told()
        await screen.settle()
        assert "no Kafka broker" not in screen.text("#alarms")


async def test_a_source_that_cannot_be_read_is_named_in_its_pane() -> None:
    stage = StagedPlatform()
    stage.model.source_failed("events", "the topic rayline.events does not exist")
    async with shown(stage=stage) as screen:
        await screen.press("4")
        assert "rayline.events does not exist" in screen.text("#pane-events .note")


async def test_an_empty_platform_says_what_to_do() -> None:
    async with shown(stage=StagedPlatform(apps=(), clusters=0)) as screen:
        assert "rayline deploy" in screen.text("#pane-apps .note")
        await screen.press("3")
        assert "rayline up" in screen.text("#pane-nodes .note")
        await screen.press("d", "enter")
        assert screen.app.is_running


async def test_a_thousand_nodes_are_shown() -> None:
    async with shown(stage=StagedPlatform(clusters=2, pods=500)) as screen:
        await screen.press("3")
        assert len(screen.rows("nodes")) == 1_000
        await screen.press("end")
        assert screen.pane("nodes").selected.key == "c2/c2-pod-500"


def test_one_look_as_text_and_json_tells_the_same() -> None:
    stage = StagedPlatform()
    text = plain(stage.snapshot())
    for part in ("10/12 nodes ready", "embed", "c2-pod-2", "notice: preempted in 30 s", "c2-pod-7 replaces c2-pod-2: notice"):
        assert part in text
    assert len(json.loads(json.dumps(stage.snapshot().as_dict()))["nodes"]) == 12


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_without_a_terminal_the_error_names_once(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["top", "--bootstrap-servers", "127.0.0.1:9"])
    assert isinstance(result.exception, ConfigError)
    assert "--once" in str(result.exception)


def test_machine_output_needs_once(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["top", "-o", "json", "--bootstrap-servers", "127.0.0.1:9"])
    assert result.exit_code == 2
    assert "--once" in result.output


def test_each_version_that_answers_stands_in_the_pane_of_apps_and_the_newest_where_it_is_alone() -> None:
    (cell,) = (column.cell for column in app_pane(60).columns if column.title == "VERSION")

    def shown(versions: dict[str, int]) -> str:
        window = Window(60, 10, 10, {"ok": 10}, 0, 1.0, 1.0, 1.0, versions)
        row = AppRow("ocr", "v2", 10.0, 1, 1, 1, None, None, None, (), {60: window}, 0, True, None, None)
        return str(cell(row))

    assert shown({}) == shown({"v2": 10}) == "v2"
    assert shown({"v1": 9, "v2": 1}) == "v1 90%, v2 10%"
    assert shown({"v1": 10}) == "v1 100%"
