"""What a batch has answered so far, as the columns of ANSWER_SCHEMA, and how an exception becomes two bounded strings."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence

import pyarrow as pa

from rayline.results import MAX_ERROR_MESSAGE_CHARS, MAX_ERROR_TYPE_CHARS
from rayline.wire import ANSWER_SCHEMA, JobStatus, binary_column, number_column

CONTRACT_ERROR = "rayline.ContractError"
MAX_TRACEBACK_CHARS = 8_000
MAX_TRACEBACKS_PER_SECOND = 20


class Answers:
    """Finished jobs of one batch that were not handed out yet.

    Owns the columns. Does not own the stream: whoever calls `take` holds the stream's lock. One thread appends, one other may
    take at the same time: `indexes` is appended to last, so that its length counts complete rows.
    """

    __slots__ = ("indexes", "messages", "statuses", "taken", "types", "values")

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.statuses: list[int] = []
        self.values: list[bytes | None] = []
        self.types: list[str | None] = []
        self.messages: list[str | None] = []
        self.taken = 0

    def __len__(self) -> int:
        return len(self.indexes)

    def ok(self, index: int, value: bytes) -> None:
        self.statuses.append(0)
        self.values.append(value)
        self.types.append(None)
        self.messages.append(None)
        self.indexes.append(index)

    def fail(self, index: int, status: JobStatus, error_type: str, message: str) -> None:
        self.statuses.append(int(status))
        self.values.append(None)
        self.types.append(error_type)
        self.messages.append(message)
        self.indexes.append(index)

    def take(self) -> pa.RecordBatch:
        """All complete rows as one record batch of ANSWER_SCHEMA (0 rows are possible); they are forgotten here."""
        rows = len(self.indexes)
        columns = [
            number_column(self.indexes[:rows], pa.int32()),
            number_column(self.statuses[:rows], pa.int8()),
            binary_column(self.values[:rows], pa.binary()),
            _text_column(self.types[:rows]),
            _text_column(self.messages[:rows]),
        ]
        for values in (self.indexes, self.statuses, self.values, self.types, self.messages):
            del values[:rows]
        self.taken += rows
        return pa.RecordBatch.from_arrays(columns, schema=ANSWER_SCHEMA)


def _text_column(texts: Sequence[str | None]) -> pa.Array:
    if texts.count(None) == len(texts):
        return pa.nulls(len(texts), pa.string())
    return binary_column([None if text is None else text.encode() for text in texts], pa.string())


def describe_error(error: BaseException) -> tuple[str, str]:
    """`(module.qualname, message)` of any exception, bounded, valid UTF-8; never raises."""
    kind = type(error)
    try:
        message = str(error)
    except BaseException as inner:  # noqa: BLE001 - a user's __str__ may raise anything
        message = f"<{kind.__qualname__} whose text cannot be made: {type(inner).__qualname__}>"
    return bounded(f"{kind.__module__}.{kind.__qualname__}", MAX_ERROR_TYPE_CHARS), bounded(message, MAX_ERROR_MESSAGE_CHARS)


def bounded(text: str, max_chars: int) -> str:
    """At most `max_chars` characters, an ellipsis where something is missing; lone surrogates are replaced."""
    cut = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8")


def describe_value(value: object) -> str:
    """What was returned, in a few words, without calling the user's code."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, (list, tuple, dict)) and kind.__module__ == "builtins":
        return f"a {name} of {len(value)}"
    return "None" if value is None else f"a {name}"


class TracebackLog:
    """Tells users' tracebacks to `write`, or to the worker's stderr: bounded in size, and in number each second."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write
        self._second = 0
        self._printed = 0
        self._suppressed = 0

    def print(self, error: BaseException) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._suppressed:
                sys.stderr.write(f"rayline: {self._suppressed} more tracebacks were not printed\n")
            self._second, self._printed, self._suppressed = second, 0, 0
        if self._printed >= MAX_TRACEBACKS_PER_SECOND:
            self._suppressed += 1
            return
        self._printed += 1
        try:
            text = "".join(traceback.format_exception(error, limit=-30))
        except BaseException as inner:  # noqa: BLE001 - formatting calls the user's code
            text = f"traceback of {type(error).__qualname__} cannot be made: {type(inner).__qualname__}\n"
        text = bounded(text, MAX_TRACEBACK_CHARS).rstrip("\n")
        if self._write is not None:
            self._write(text)
        else:
            sys.stderr.write(text + "\n")
