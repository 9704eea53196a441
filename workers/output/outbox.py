"""Printed lines on their way to Kafka: gathered from many workers, bounded in memory, handed out as records."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rayline.printed import PrintedLine, Printer, Stream

MAX_HELD_BYTES: Final = 4 * 1024 * 1024
RECORD_BYTES: Final = 256 * 1024
# What a line takes besides its text.
_LINE_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Parcel:
    """One record's worth: lines of one printer in their order."""

    printer: Printer
    lines: tuple[PrintedLine, ...]


class Outbox:
    """Owns the lines that are not with Kafka yet. While it is away the oldest make room, and the printer's next record says so.

    `put` from any thread, `take` and `put_back` from one. `kept` and `dropped` count lines since the start.
    """

    def __init__(self, *, on_news: Callable[[], None], max_held_bytes: int = MAX_HELD_BYTES) -> None:
        """`on_news` is called, in the thread of `put`, when something came into an empty outbox."""
        self._on_news = on_news
        self._max_held_bytes = max_held_bytes
        self._lock = threading.Lock()
        self._held: deque[tuple[Printer, PrintedLine, int]] = deque()
        self._held_bytes = 0
        self._lost: dict[Printer, int] = {}
        self.kept = 0
        self.dropped = 0

    @property
    def holds_lines(self) -> bool:
        return bool(self._held)

    def put(self, printer: Printer, line: PrintedLine) -> None:
        size = _size(line)
        with self._lock:
            first = not self._held
            self._held.append((printer, line, size))
            self._held_bytes += size
            self.dropped += line.dropped
            while self._held_bytes > self._max_held_bytes:
                self._lose_oldest()
        if first:
            self._on_news()

    def take(self) -> list[Parcel]:
        """The oldest lines, up to one record's worth, as a parcel for each printer; empty when there are none."""
        with self._lock:
            taken: dict[Printer, list[PrintedLine]] = {}
            size = 0
            while self._held and size < RECORD_BYTES:
                printer, line, line_bytes = self._held.popleft()
                size += line_bytes
                lines = taken.get(printer)
                if lines is None:
                    lines = taken[printer] = self._word_of_lost(printer, line.at_ms)
                lines.append(line)
            self._held_bytes -= size
            self.kept += sum(map(len, taken.values()))
            return [Parcel(printer, tuple(lines)) for printer, lines in taken.items()]

    def put_back(self, parcels: Sequence[Parcel]) -> None:
        """Kafka did not take them: they are the oldest again."""
        with self._lock:
            for parcel in reversed(parcels):
                self.kept -= len(parcel.lines)
                for line in reversed(parcel.lines):
                    size = _size(line)
                    self._held.appendleft((parcel.printer, line, size))
                    self._held_bytes += size
            while self._held_bytes > self._max_held_bytes:
                self._lose_oldest()

    def _word_of_lost(self, printer: Printer, at_ms: int) -> list[PrintedLine]:
        lost = self._lost.pop(printer, 0)
        return [PrintedLine(at_ms, Stream.DROPPED, "Kafka did not take them in time", dropped=lost)] if lost else []

    def _lose_oldest(self) -> None:
        printer, line, size = self._held.popleft()
        self._held_bytes -= size
        count = line.dropped or 1
        self._lost[printer] = self._lost.get(printer, 0) + count
        if not line.dropped:
            self.dropped += 1


def _size(line: PrintedLine) -> int:
    return len(line.text.encode("utf-8", "replace")) + _LINE_BYTES
