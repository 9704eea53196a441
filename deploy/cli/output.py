"""Data on stdout in the form that was asked for; everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any


class OutputFormat(StrEnum):
    """`-o`: text for people, one JSON document, or one JSON object on each line."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class Records:
    """Prints a sequence of records as they come.

    Owns the open JSON array of `-o json`; `with Records(...)` closes it on any way out. `text` makes the line for people.
    """

    def __init__(self, output: OutputFormat, text: Callable[[Any], str]) -> None:
        self._output = output
        self._text = text
        self._count = 0

    def __enter__(self) -> Records:
        return self

    def add(self, record: Mapping[str, Any]) -> None:
        if self._output is OutputFormat.TEXT:
            line = self._text(record)
        elif self._output is OutputFormat.JSON:
            line = ("[\n" if self._count == 0 else ",\n") + to_json(record)
        else:
            line = to_json(record)
        self._count += 1
        sys.stdout.write(line if self._output is OutputFormat.JSON else line + "\n")
        sys.stdout.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._output is OutputFormat.JSON and not isinstance(error, BrokenPipeError):
            sys.stdout.write("\n]\n" if self._count else "[]\n")
            sys.stdout.flush()


def show(output: OutputFormat, record: Mapping[str, Any], text: str | None = None) -> None:
    """One answer: `text` for people, the record for machines (indented as `json`, on one line as `jsonl`).

    Without a text people get the record as `json`, too.
    """
    if output is OutputFormat.TEXT and text is not None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    elif output is OutputFormat.JSONL:
        sys.stdout.write(to_json(record) + "\n")
    else:
        sys.stdout.write(json.dumps(record, indent=2, ensure_ascii=False, default=_plain) + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def to_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, default=_plain)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their longest cell, for text output."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def _plain(value: Any) -> Any:
    """What JSON cannot hold: bytes as text where they are, everything else by its repr."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return repr(value)
