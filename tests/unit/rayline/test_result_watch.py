"""Waiting with one reader: what ends the reader reaches every waiter, what was forgotten is not promised."""

from __future__ import annotations

import asyncio

import pytest

from rayline import result_watch
from rayline.bus import KafkaSettings, LogRecord
from rayline.errors import FormatError
from rayline.jobs import ContentType
from rayline.result_watch import ResultWatch
from rayline.results import Outcome, Result


class FakeLog:
    """Stands in for `CompactedLog`: hands out what the test puts into `records`, an exception by raising it."""

    records: asyncio.Queue[LogRecord | Exception]

    def __init__(self, **_: object) -> None:
        pass

    async def __aenter__(self) -> FakeLog:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def getmany(self, *, timeout_ms: int) -> list[LogRecord]:
        item = await FakeLog.records.get()
        if isinstance(item, Exception):
            raise item
        return [item]


def record(offset: int) -> LogRecord:
    return LogRecord(partition=0, offset=offset, timestamp_ms=1000 + offset, key=None, value=None)


def parse(record: LogRecord) -> Result:
    return Result(
        job_id="same",
        outcome=Outcome.OK,
        source=f"t/0/{record.offset}",
        key=None,
        value=None,
        content_type=ContentType.MSGPACK,
        headers=(),
        timestamp_ms=record.timestamp_ms,
    )


@pytest.fixture
def watch_maker(monkeypatch: pytest.MonkeyPatch) -> type[FakeLog]:
    FakeLog.records = asyncio.Queue()
    monkeypatch.setattr(result_watch, "CompactedLog", FakeLog)
    return FakeLog


def new_watch() -> ResultWatch:
    return ResultWatch(settings=KafkaSettings("unused:1"), topic="t", since_ms=0, parse=parse)


async def test_results_are_found_before_and_after_they_are_waited_for(watch_maker: type[FakeLog]) -> None:
    watch = new_watch()
    watch_maker.records.put_nowait(record(1))
    assert (await watch.wait_for("t/0/1")).source == "t/0/1"
    later = [asyncio.ensure_future(watch.wait_for("t/0/2")) for _ in range(3)]
    watch_maker.records.put_nowait(record(2))
    assert [result.source for result in await asyncio.gather(*later)] == ["t/0/2"] * 3
    assert (await watch.wait_for("t/0/1")).source == "t/0/1"
    await watch.close()


async def test_what_ends_the_reader_reaches_every_waiter(watch_maker: type[FakeLog]) -> None:
    watch = new_watch()
    waiting = [asyncio.ensure_future(watch.wait_for(f"t/0/{number}")) for number in range(3)]
    watch_maker.records.put_nowait(FormatError("broken record"))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["broken record"] * 3
    assert not watch.remembers(since_ms=10**9)
    await watch.close()


async def test_what_was_forgotten_is_not_promised(watch_maker: type[FakeLog], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_watch, "MAX_REMEMBERED", 2)
    watch = new_watch()
    assert watch.remembers(since_ms=1)
    for offset in range(4):
        watch_maker.records.put_nowait(record(offset))
    await watch.wait_for("t/0/3")
    assert not watch.remembers(since_ms=1001)
    assert watch.remembers(since_ms=1002)
    await watch.close()
