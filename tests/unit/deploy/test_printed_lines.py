"""The lines of one job out of all that was printed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deploy import printed_lines
from deploy.printed_lines import lines_of
from rayline.bus import KafkaSettings, LogRecord
from rayline.jobs import ContentType
from rayline.printed import APP_HEADER, PrintedLine, Printer, Stream, encode_printed
from rayline.results import Outcome, Result

NOWHERE = KafkaSettings("127.0.0.1:1")
AT_MS = 1_700_000_000_000
RESULT = Result("j", Outcome.OK, "app.requests/0/1", None, b"", ContentType.JSON, (), AT_MS, timing_ms={"execute": 500.0})


class Topic:
    """Stands for a reader of `rayline.logs`: hands out one record at a time."""

    records: list[LogRecord]
    whole = True
    since_ms = until_ms = 0

    def __init__(self, *, since_ms: int, until_ms: int, **_: Any) -> None:
        type(self).since_ms, type(self).until_ms = since_ms, until_ms
        self._left = list(self.records)
        self.caught_up = asyncio.Event()

    async def __aenter__(self) -> Topic:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def getmany(self, *, timeout_ms: int) -> list[LogRecord]:
        taken, self._left = self._left[:1], self._left[1:]
        if not self._left:
            self.caught_up.set()
        return taken


def said_by(node: str, *lines: tuple[int, str]) -> LogRecord:
    value = encode_printed(
        Printer("c", node, "app", "1", "a", "i"), [PrintedLine(AT_MS + at, Stream.STDOUT, text, job="j") for at, text in lines]
    )
    return LogRecord(0, 0, AT_MS, f"c/{node}".encode(), value, ((APP_HEADER, b"app"),))


@pytest.fixture(autouse=True)
def topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printed_lines, "CompactedLog", Topic)
    Topic.records = [said_by("n1", (-400, "b"), (-100, "d")), said_by("n2", (-450, "a"), (-300, "c"), (60_000, "much later"))]


async def test_lines_of_all_nodes_come_by_time_from_the_jobs_arrival_to_its_result() -> None:
    found = await lines_of(NOWHERE, RESULT)
    assert ([one.line.text for one in found.lines], found.left_out, found.whole) == (["a", "b", "c", "d"], 0, True)
    assert AT_MS - 60_000 < Topic.since_ms < AT_MS - 500
    # However much was printed since, it is not read.
    assert AT_MS + 60_000 < Topic.until_ms < AT_MS + 3_600_000


async def test_of_many_lines_the_last_are_kept_and_the_others_counted() -> None:
    found = await lines_of(NOWHERE, RESULT, most=1)
    assert ([one.line.text for one in found.lines], found.left_out) == (["d"], 3)


async def test_nothing_found_means_nothing_printed_only_where_the_topic_goes_back_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    Topic.records = []
    assert not (await lines_of(NOWHERE, RESULT)).lost
    monkeypatch.setattr(Topic, "whole", False)
    assert (await lines_of(NOWHERE, RESULT)).lost
