"""Reading an app's dead letters and replaying them: a replay is a plain produce of the original key, value and headers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from rayline.bus import CompactedLog, KafkaSettings, LogRecord, Publisher
from rayline.jobs import JOB_ID
from rayline.results import DLQ_HEADERS, DLQ_REASON, DLQ_SOURCE, DLQ_TIME
from rayline.topics import dlq_topic, requests_topic

_POLL_MS: Final = 500
_PREVIEW_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of `<app>.dlq`. `letter` is its name in the CLI: `<partition>-<offset>`."""

    record: LogRecord

    @property
    def letter(self) -> str:
        return f"{self.record.partition}-{self.record.offset}"

    def as_dict(self, *, whole: bool) -> dict[str, Any]:
        """For output; `whole` includes the value (text where it is UTF-8, else hexadecimal) and all original headers."""
        headers = {name: raw.decode("utf-8", "replace") for name, raw in self.record.headers}
        value = self.record.value or b""
        listed: dict[str, Any] = {
            "letter": self.letter,
            "job_id": headers.get(JOB_ID),
            "reason": headers.get(DLQ_REASON),
            "source": headers.get(DLQ_SOURCE),
            "time": headers.get(DLQ_TIME),
            "bytes": len(value),
        }
        if whole:
            listed["key"] = self.record.key
            listed["value"] = value
            listed["headers"] = {name: text for name, text in headers.items() if name not in DLQ_HEADERS}
        return listed

    def preview(self) -> str:
        """The first bytes of the value, printable."""
        value = self.record.value or b""
        text = value[:_PREVIEW_BYTES].decode("utf-8", "backslashreplace")
        return text + (f" … ({len(value)} bytes)" if len(value) > _PREVIEW_BYTES else "")


async def read_dead_letters(settings: KafkaSettings, app: str) -> AsyncGenerator[DeadLetter, None]:
    """The dead letters that the topic holds at this moment, oldest first."""
    async with CompactedLog(settings=settings, topic=dlq_topic(app), client_id="rayline-dlq") as log:
        while True:
            for record in await log.getmany(timeout_ms=_POLL_MS):
                yield DeadLetter(record)
            if log.caught_up.is_set():
                return


async def replay(settings: KafkaSettings, app: str, letters: Collection[str] | None) -> list[tuple[str, str]]:
    """Produce dead letters to the app's requests again; None: all. Returns (letter, new `partition-offset`) of each.

    The letters stay in the topic: one replayed twice is two jobs.
    """
    replayed: list[tuple[str, str]] = []
    async with (
        Publisher(settings=settings, client_id="rayline-replay") as publisher,
        aclosing(read_dead_letters(settings, app)) as found,
    ):
        async for dead in found:
            if letters is not None and dead.letter not in letters:
                continue
            record = dead.record
            headers = [(name, raw) for name, raw in record.headers if name not in DLQ_HEADERS]
            sent = await publisher.send(requests_topic(app), key=record.key, value=record.value, headers=headers)
            delivery = await sent
            replayed.append((dead.letter, f"{delivery.partition}-{delivery.offset}"))
    return replayed
