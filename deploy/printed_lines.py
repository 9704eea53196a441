"""Reading what users' code printed back from `rayline.logs`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.errors import FormatError
from rayline.logs import on_one_line
from rayline.printed import APP_HEADER, PrintedLine, Printer, Stream, decode_printed
from rayline.results import Result
from rayline.topics import LOGS

_CLIENT_ID: Final = "rayline-logs"
_POLL_MS: Final = 200
_SEARCH_SECONDS: Final = 20.0
# Lines reach the topic a little before or after the result that they belong to, and clocks are a little apart.
_MARGIN_MS: Final = 10_000
# An agent that does not reach Kafka writes what it holds so much later, or hardly ever.
_LATE_MS: Final = 600_000
_MARKS: Final = {Stream.STDOUT: "|", Stream.STDERR: "!", Stream.TRACEBACK: "!", Stream.DROPPED: "~"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines. `node` is a pod, or `cluster/pod`; None: any.

    `job` is a job's id and `batches` those that it was in: its own lines, and those of its batches that are no single job's.
    """

    app: str
    node: str | None = None
    job: str | None = None
    batches: frozenset[str] = field(default_factory=frozenset)

    def takes(self, record: LogRecord) -> bool:
        """Whether there may be such lines in it, judged without opening it."""
        key = (record.key or b"").decode("utf-8", "replace")
        named = self.node is None or key == self.node or key.endswith(f"/{self.node}")
        return named and dict(record.headers).get(APP_HEADER) == self.app.encode()

    def matches(self, line: PrintedLine) -> bool:
        if self.job is None:
            return True
        return line.job == self.job or (line.job is None and line.batch in self.batches)


@dataclass(frozen=True, slots=True)
class FoundLine:
    """One line and who printed it."""

    printer: Printer
    line: PrintedLine

    @property
    def mark(self) -> str:
        """`|` stdout, `!` stderr and tracebacks, `~` what is missing."""
        return _MARKS[self.line.stream]

    @property
    def said(self) -> list[str]:
        """What it says, line by line (only a traceback has several), with an escape for each character that is not printable."""
        line = self.line
        text = f"{line.dropped} lines dropped: {line.text}" if line.stream is Stream.DROPPED else line.text
        # Anybody may write into a topic: no orders to the terminal.
        return [on_one_line(part) for part in text.split("\n")]

    def text(self, *, where: bool = True) -> str:
        """For a person: time (UTC), place, job or batch, and the text; every further line of a traceback under its first."""
        line = self.line
        stamp = time.strftime("%H:%M:%S", time.gmtime(line.at_ms / 1000)) + f".{line.at_ms % 1000:03d}"
        whose = line.job or (f"batch {line.batch}" if line.batch else "–")
        head = f"{stamp} {self.printer.place} {whose} {self.mark} " if where else f"{stamp} {self.mark} "
        first, *more = self.said
        return "\n".join([on_one_line(head) + first, *(" " * (len(head) - 2) + "! " + part for part in more)])

    def as_dict(self) -> dict[str, Any]:
        """A JSON-friendly form for `-o json`."""
        printer, line = self.printer, self.line
        return {
            "at_ms": line.at_ms,
            "cluster": printer.cluster,
            "node": printer.node,
            "app": printer.app,
            "version": printer.version,
            "actor": printer.actor,
            "instance": printer.instance,
            "batch": line.batch,
            "job": line.job,
            "stream": line.stream.value,
            "text": line.text,
            "dropped": line.dropped,
            "trace_id": line.trace_id,
        }


@dataclass(frozen=True, slots=True)
class JobLines:
    """What the function printed for a job, by time. `left_out` counts earlier lines beyond the limit that was asked for; `whole`
    False: nothing older than the job is in the topic any more, so that lines of the job may be gone, too."""

    lines: Sequence[FoundLine]
    left_out: int = 0
    whole: bool = True

    @property
    def lost(self) -> bool:
        """Nothing is there; whether something was, is not known any more."""
        return not self.lines and not self.whole


async def read_lines(
    settings: KafkaSettings, wanted: Wanted, *, since_ms: int, follow: bool = False
) -> AsyncGenerator[list[FoundLine], None]:
    """Lines since then, in the order of each node: first one list of all that the topic holds, sorted by time, then, when
    following, what comes, for ever. A record that is not of the protocol is left out with a warning.

    Raises:
        BusError: the topic cannot be read.
    """
    async with _open(settings, since_ms) as log:
        present = [line async for found in _present(log, wanted) for line in found]
        present.sort(key=_at_ms)
        yield present
        while follow:
            found = [line for record in await log.getmany(timeout_ms=_POLL_MS) for line in _lines(record, wanted)]
            if found:
                yield found


async def lines_of(settings: KafkaSettings, result: Result, *, most: int | None = None) -> JobLines:
    """What the function printed for a job that has a result, its tracebacks among it; the last `most` lines, or all.

    Raises:
        BusError: the topic cannot be read.
        TimeoutError: it holds too much since then to be looked through in twenty seconds.
    """
    since_ms = result.timestamp_ms - round(sum(result.timing_ms.values())) - _MARGIN_MS
    kept: list[FoundLine] = []
    count = 0
    until_ms = result.timestamp_ms + _LATE_MS
    async with asyncio.timeout(_SEARCH_SECONDS), _open(settings, since_ms, until_ms) as log:
        async for found in _present(log, wanted_for(result)):
            lines = [one for one in found if one.line.at_ms < result.timestamp_ms + _MARGIN_MS]
            count += len(lines)
            kept += lines
            if most is not None and len(kept) > 2 * most:
                kept = _last(kept, most)
    kept = _last(kept, most)
    return JobLines(kept, count - len(kept), log.whole)


def wanted_for(result: Result, *, node: str | None = None) -> Wanted:
    """The lines of a job that has a result, those of attempts that brought no answer among them."""
    app = result.source.partition("/")[0].removesuffix(".requests")
    batches = frozenset(batch for batch in (result.batch_id, *(one.batch for one in result.tried)) if batch)
    return Wanted(app, node, result.job_id, batches)


def _open(settings: KafkaSettings, since_ms: int, until_ms: int | None = None) -> CompactedLog:
    return CompactedLog(settings=settings, topic=LOGS, since_ms=max(0, since_ms), until_ms=until_ms, client_id=_CLIENT_ID)


async def _present(log: CompactedLog, wanted: Wanted) -> AsyncIterator[list[FoundLine]]:
    """All that the topic held when the log was opened, in the order of each node."""
    while not log.caught_up.is_set():
        yield [line for record in await log.getmany(timeout_ms=_POLL_MS) for line in _lines(record, wanted)]


def _last(lines: list[FoundLine], most: int | None) -> list[FoundLine]:
    ordered = sorted(lines, key=_at_ms)
    return ordered if most is None else ordered[-most:]


def _at_ms(found: FoundLine) -> int:
    return found.line.at_ms


def _lines(record: LogRecord, wanted: Wanted) -> list[FoundLine]:
    if record.value is None or not wanted.takes(record):
        return []
    try:
        printed = decode_printed(record.value)
    except FormatError as error:
        _log.warning("record %d of %s is left out: %s", record.offset, LOGS, error)
        return []
    return [FoundLine(printed.printer, line) for line in printed.lines if wanted.matches(line)]
