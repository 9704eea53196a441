"""What a job printed, on its page: all that was found, in its order, as text; and a word where there is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nicegui import Client, ui
from nicegui.page import page

from deploy.console.desk import Found
from deploy.console.pages import jobs
from deploy.console.printed import MOST_TEXT_CHARS, Printed
from deploy.printed_lines import FoundLine, JobLines
from rayline.errors import BusError
from rayline.jobs import ContentType
from rayline.printed import PrintedLine, Printer, Stream
from rayline.results import Outcome, Result

RESULT = Result("page-7", Outcome.OK, "ocr.requests/3/17", None, b"", ContentType.JSON, (), 1_700_000_001_000)
PRINTER = Printer("c1", "p1", "ocr", "1", "a", "i")


class FakeDesk:
    """Finds what it was told to; an error is raised."""

    def __init__(self, found: JobLines | Exception) -> None:
        self.found = found
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def printed(self, result: Result) -> JobLines:
        self.asked.append(result.job_id)
        await self.may_answer.wait()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def found(text: str, stream: Stream = Stream.STDOUT, **fields: Any) -> FoundLine:
    return FoundLine(PRINTER, PrintedLine(1_700_000_000_500, stream, text, **fields))


@pytest.fixture
async def screen() -> AsyncIterator[Client]:
    client = Client(page("/jobs"))
    yield client
    client.delete()


def texts(client: Client) -> list[str]:
    return [one.text for one in client.elements.values() if isinstance(one, ui.label) and one.visible]


async def shown(client: Client, given: JobLines | Exception) -> list[str]:
    with client:
        await Printed(RESULT, FakeDesk(given)).read()  # type: ignore[arg-type]
    return texts(client)


async def test_lines_and_tracebacks_stand_in_their_order_each_with_its_time_and_stream(screen: Client) -> None:
    trace = "Traceback:\n  in x\nValueError: no"
    lines = [found("reading"), found(trace, Stream.TRACEBACK), found("too many", Stream.DROPPED, dropped=12)]
    assert (await shown(screen, JobLines(lines)))[1:4] == ["reading", trace, "12 lines dropped: too many"]
    rows = [one for one in screen.elements.values() if "data-at" in one.props]
    assert [one.props["data-stream"] for one in rows] == ["stdout", "traceback", "dropped"]
    assert [str(one.props["data-at"])[-6:] for one in rows] == [".500 |", ".500 !", ".500 ~"]


async def test_what_anybody_may_have_written_is_text_without_orders_and_of_bounded_length(screen: Client) -> None:
    said = await shown(screen, JobLines([found("\x1b[2J\u202e<b>"), found("y" * 10_000)]))
    assert said[1] == "\\x1b[2J\\u202e<b>"
    assert said[2] == "y" * MOST_TEXT_CHARS + " … (10000 characters)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (JobLines([]), "Nothing was printed."),
        (JobLines([], whole=False), "Nothing that is still kept"),
        (BusError("no broker answers"), "no broker answers"),
        (TimeoutError(), "rayline.logs holds too much"),
    ],
)
async def test_where_no_line_is_it_says_why(screen: Client, given: JobLines | Exception, said: str) -> None:
    assert any(text.startswith(said) for text in await shown(screen, given))
    assert not any("data-at" in one.props for one in screen.elements.values())


async def test_lines_that_were_left_out_are_counted(screen: Client) -> None:
    assert "The last 1; 1.2 k came before: `rayline logs` has them all." in await shown(screen, JobLines([found("end")], 1234))


async def test_a_card_that_another_search_took_away_gets_no_lines(screen: Client) -> None:
    desk = FakeDesk(JobLines([found("late")]))
    desk.may_answer.clear()
    with screen, ui.card() as card:
        printed = Printed(RESULT, desk)  # type: ignore[arg-type]
    reading = asyncio.create_task(printed.read())
    await asyncio.sleep(0)
    card.delete()
    desk.may_answer.set()
    await reading
    assert "late" not in texts(screen)


@pytest.mark.parametrize(("results", "read"), [(1, ["page-7"]), (3, [])])
async def test_the_lines_of_the_only_result_are_read_at_once_of_several_when_asked_for(
    screen: Client, results: int, read: list[str]
) -> None:
    desk = FakeDesk(JobLines([]))
    with screen:
        first = jobs._show(ui.element(), Found([RESULT] * results, 7, whole=True), "page-7", desk)  # type: ignore[arg-type]
    if first is not None:
        await first.read()
    assert desk.asked == read
    assert texts(screen).count("What it printed") == results
