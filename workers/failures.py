"""How a user's exception and value are told: bounded, as valid UTF-8, whatever their own code does."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable

from rayline.results import MAX_ERROR_MESSAGE_CHARS, MAX_ERROR_TYPE_CHARS

CONTRACT_ERROR = "rayline.ContractError"
MAX_TRACEBACK_CHARS = 8_000
MAX_TRACEBACKS_PER_SECOND = 20


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
