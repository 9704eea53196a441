"""How a command ends: the exit codes of docs/cli.md, and what is printed for a failure."""

from __future__ import annotations

import asyncio
import sys
import traceback
from enum import IntEnum

from rayline.errors import RaylineError


class ExitCode(IntEnum):
    """Documented in docs/cli.md; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO = 3
    UNEXPECTED = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "it could not be done; the cause and the remedy stand on stderr",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.NO: "the question was answered, and the answer is no: not running, not found, not in order",
    ExitCode.UNEXPECTED: "a fault of Rayline itself; the traceback stands on stderr",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
    ExitCode.BROKEN_PIPE: "the reader of the output left",
}


def explain_failure(error: BaseException) -> ExitCode:
    """Print a failure to stderr as its reader needs it: cause and remedy, or a traceback for what nobody foresaw."""
    known = _only_known(error)
    if known:
        for one in known:
            print(f"error: {one}", file=sys.stderr)  # noqa: T201
        return ExitCode.FAILED
    if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
        return ExitCode.INTERRUPTED
    traceback.print_exception(error, file=sys.stderr)
    print("error: this is a fault of Rayline itself; please report the lines above", file=sys.stderr)  # noqa: T201
    return ExitCode.UNEXPECTED


def _only_known(error: BaseException) -> list[RaylineError]:
    """The errors of ours in `error`, seen through groups; none when anything else is among them."""
    if isinstance(error, RaylineError):
        return [error]
    if isinstance(error, BaseExceptionGroup):
        parts = [_only_known(part) for part in error.exceptions]
        return [known for part in parts for known in part] if all(parts) else []
    return []
