"""Finding what became of a job: among the newest results first, and no further back than needed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.errors import FormatError
from rayline.jobs import JOB_ID
from rayline.results import SOURCE, Result, parse_result
from rayline.topics import results_topic

_CLIENT_ID: Final = "rayline-job-search"
_POLL_MS: Final = 200
# Most jobs that somebody asks for ended a moment ago; each further look reads six times as much.
_FIRST_LOOK_SECONDS: Final = 600.0
_WIDER: Final = 6
_LOOKS: Final = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What a search for a job gave. `looked` counts results that were read; `whole`: everything asked for was read."""

    results: Sequence[Result]
    looked: int
    whole: bool


async def search(
    settings: KafkaSettings,
    app: str,
    job: str,
    *,
    since_seconds: float | None = None,
    limit_seconds: float | None = None,
    most: int | None = None,
) -> Found:
    """Results of a job's id, or of its record (`topic/partition/offset`), oldest first.

    With `since_seconds` all that was published so lately is read. Without, the newest results are looked through first, then
    older ones, and none older than those in which one is found: a job that used the same id long before is not told.
    Ends after `limit_seconds`, or with `most` results, with what was found by then.

    Raises:
        BusError: the results cannot be read.
    """
    found: list[Result] = []
    looked, wanted, whole = 0, job.encode(), True
    over_at = None if limit_seconds is None else time.monotonic() + limit_seconds
    for since_ms, until_ms in _looks(since_seconds, round(time.time() * 1000)):
        async with CompactedLog(
            settings=settings, topic=results_topic(app), since_ms=since_ms, until_ms=until_ms, client_id=_CLIENT_ID
        ) as log:
            while not (whole := log.caught_up.is_set()) and not (most is not None and len(found) >= most):
                if over_at is not None and time.monotonic() >= over_at:
                    break
                records = await log.getmany(timeout_ms=_POLL_MS)
                looked += len(records)
                found += [result for record in records if _names(record, wanted) and (result := _read(record)) is not None]
        if found or not whole:
            break
    found.sort(key=lambda result: result.timestamp_ms)
    return Found(found if most is None else found[:most], looked, whole)


def _looks(since_seconds: float | None, now_ms: int) -> Iterator[tuple[int, int | None]]:
    """From when to when (epoch milliseconds) each look reads, newest first; the first has no end, the last no beginning."""
    if since_seconds is not None:
        yield max(0, now_ms - round(since_seconds * 1000)), None
        return
    until_ms: int | None = None
    span_ms = round(_FIRST_LOOK_SECONDS * 1000)
    for _ in range(_LOOKS):
        yield now_ms - span_ms, until_ms
        until_ms, span_ms = now_ms - span_ms, span_ms * _WIDER
    yield 0, until_ms


def _names(record: LogRecord, wanted: bytes) -> bool:
    """Whether a result is of that job, looked at without reading all of it: there may be millions."""
    return any(value == wanted for name, value in record.headers if name in (JOB_ID, SOURCE))


def _read(record: LogRecord) -> Result | None:
    """None for what somebody else wrote into the topic."""
    try:
        return parse_result(key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms)
    except FormatError:
        return None
