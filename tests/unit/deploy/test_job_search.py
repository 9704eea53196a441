"""A job is looked for among the newest results first, and no further back than needed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from deploy import job_search
from deploy.job_search import search
from rayline.bus import KafkaSettings, LogRecord

NOWHERE = KafkaSettings("127.0.0.1:1")
MINUTE, HOUR, DAY = 60, 3_600, 86_400


class Topic:
    """Stands for readers of a results topic: hands out one record at a time of the span that a reader was asked for."""

    held: list[LogRecord]
    reads: int
    spans: list[tuple[int, int | None]]

    def __init__(self, *, topic: str, since_ms: int, until_ms: int | None, **_: Any) -> None:
        assert topic == "app.results"
        self.spans.append((since_ms, until_ms))
        later = float("inf") if until_ms is None else until_ms
        self._left = [record for record in self.held if since_ms <= record.timestamp_ms < later]
        self.caught_up = asyncio.Event()
        self._note()

    def _note(self) -> None:
        if not self._left:
            self.caught_up.set()

    async def __aenter__(self) -> Topic:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def getmany(self, *, timeout_ms: int) -> list[LogRecord]:
        type(self).reads += 1
        taken, self._left = self._left[:1], self._left[1:]
        self._note()
        return taken


def result(job_id: str, seconds_ago: float, offset: int, *, whole: bool = True) -> LogRecord:
    source = f"app.requests/0/{offset}".encode()
    more = (("outcome", b"ok"), ("source", source)) if whole else ()
    at_ms = round((time.time() - seconds_ago) * 1000)
    return LogRecord(0, offset, at_ms, None, b"v", (("job-id", job_id.encode()), *more))


@pytest.fixture(autouse=True)
def topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_search, "CompactedLog", Topic)
    Topic.reads, Topic.spans = 0, []
    others = [result(f"other-{number}", 30 * DAY - number * HOUR, 1_000 + number) for number in range(30 * 24)]
    Topic.held = [*others, result("old", 20 * DAY, 1), result("again", 3 * DAY, 2), result("again", 2 * MINUTE, 3)]
    Topic.held += [result("again", MINUTE, 4), result("new", MINUTE, 5), result("new", MINUTE, 6, whole=False)]
    Topic.held.sort(key=lambda record: record.timestamp_ms)


async def test_a_new_job_is_found_among_the_newest_results_alone() -> None:
    found = await search(NOWHERE, "app", "new")
    assert [one.source for one in found.results] == ["app.requests/0/5"]
    assert (found.looked, found.whole, len(Topic.spans)) == (4, True, 1)


async def test_a_job_of_long_ago_is_found_and_nothing_is_read_twice() -> None:
    found = await search(NOWHERE, "app", "old")
    assert [one.job_id for one in found.results] == ["old"]
    assert found.looked == Topic.reads == len(Topic.held)
    # Each look ends where the one before began, the last begins with the topic.
    assert [until for _, until in Topic.spans] == [None, *(since for since, _ in Topic.spans[:-1])]
    assert Topic.spans[-1][0] == 0
    assert len(Topic.spans) <= 5


async def test_of_an_id_that_was_used_long_before_the_newest_are_told_and_all_where_a_span_is_asked_for() -> None:
    assert [one.source[-1] for one in (await search(NOWHERE, "app", "again")).results] == ["3", "4"]
    since = await search(NOWHERE, "app", "again", since_seconds=7 * DAY)
    assert [one.source[-1] for one in since.results] == ["2", "3", "4"]
    assert [one.source for one in (await search(NOWHERE, "app", "app.requests/0/2")).results] == ["app.requests/0/2"]


async def test_what_is_not_there_was_looked_for_everywhere_that_was_asked_for() -> None:
    assert (await search(NOWHERE, "app", "nobody")).looked == len(Topic.held)
    since = await search(NOWHERE, "app", "old", since_seconds=7 * DAY)
    assert (list(since.results), since.whole) == ([], True)
    assert since.looked < len(Topic.held) / 3


async def test_a_search_ends_with_its_time_or_its_number_and_says_that_it_is_not_whole() -> None:
    over = await search(NOWHERE, "app", "old", limit_seconds=0.0)
    assert (list(over.results), over.looked, over.whole) == ([], 0, False)
    first = await search(NOWHERE, "app", "again", since_seconds=7 * DAY, most=1)
    assert (len(first.results), first.whole) == (1, False)
