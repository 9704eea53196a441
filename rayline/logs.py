"""Log lines of Rayline's processes: one line a record, as text or JSON, with the trace that it belongs to, without secrets.

RAYLINE_LOG_LEVEL     the least severe line that is written (the live setting `log.level` changes it)
RAYLINE_LOG_FORMAT    text (default) or json
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

from rayline.enums import StrEnum
from rayline.errors import ConfigError

LEVEL_VARIABLE: Final = "RAYLINE_LOG_LEVEL"
FORMAT_VARIABLE: Final = "RAYLINE_LOG_FORMAT"
MAX_LINE_CHARS: Final = 16_384
_HIDDEN: Final = "***"
_LEAST_SECRET_CHARS: Final = 8
# Name and value of what must not be written, the value up to where it ends; what its form betrays; and passwords in addresses. No
# part repeats without a bound where another one could take the same characters: a hostile line would take minutes.
_SECRETS: Final = re.compile(
    r"""(?ix)
    (?P<name>(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|sasl[._]jaas[._]config
            |x-amz-signature|(?<=[?&])sig(?==))[\w.-]{0,64}
        ["']?\s*(?:=|:)\s*)
    (?P<value>b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'|[^\s,;&)}\]"']+)
    | (?P<flag>--[a-z-]{0,32}(?:password|passphrase|secret|token|api-key|access-key)\s+)(?P<argument>[^\s-]\S*)
    | (?P<scheme>\bauthorization["']?\s*[:=]\s*b?["']?|\bbearer\s+|\bbasic\s+)
        (?P<credential>(?:bearer\s+|basic\s+|token\s+)?[A-Za-z0-9._~+/=-]{6,})
    | (?P<cookie>\bcookie["']?\s*[:=]\s*)(?P<jar>[^\r\n]+)
    | \b(?:gh[opsu]_|hf_)[a-z0-9]{20,} | \beyJ[\w-]{8,}\.[\w.-]{20,}
    | (?P<url>[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*:)(?P<password>[^\s/@]+)(?=@)
    | (?P<key>-----BEGIN[A-Z ]*PRIVATE\ KEY-----).*?(?:-----END[A-Z ]*PRIVATE\ KEY-----|$)
    """,
    re.DOTALL,
)
# Looked for first: nearly all lines hold nothing of the kind.
_HINT: Final = re.compile(
    r"(?i)passw|passphrase|secret|token|api[_-]?key|access[_-]?key|private|jaas|authorization|bearer|basic |://[^\s/]*@"
    r"|cookie|x-amz-signature|[?&]sig=|gh[opsu]_|hf_|eyj"
)


class LogFormat(StrEnum):
    """TEXT for people, JSON for collectors."""

    TEXT = "text"
    JSON = "json"


def redact(text: str) -> str:
    """The text without passwords, tokens, keys and credentials in addresses."""
    return _SECRETS.sub(_hide, text) if _HINT.search(text) else text


def holds_secret(name: str, value: str) -> bool:
    """Whether the name of a variable says that nobody should read its value (which names no file, and is no common word)."""
    return len(value) >= _LEAST_SECRET_CHARS and not value.startswith("/") and redact(f"{name}={value}") != f"{name}={value}"


class LineFormatter(logging.Formatter):
    """One record on one line, redacted and bounded. Text: time, level, logger, message, fields after it; JSON: an object."""

    def __init__(self, form: LogFormat, *, process: str | None = None) -> None:
        super().__init__()
        self._form = form
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        message = redact(_bounded(record.getMessage()))
        trace = _current_trace()
        error = redact(_bounded(self.formatException(record.exc_info))) if record.exc_info else None
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        if self._form is LogFormat.JSON:
            fields: dict[str, Any] = {"time": stamp, "level": record.levelname, "logger": record.name, "message": message}
            if self._process is not None:
                fields["process"] = self._process
            if trace is not None:
                fields["trace_id"], fields["span_id"] = trace
            if error is not None:
                fields["error"] = error
            return json.dumps(fields, ensure_ascii=False)
        line = f"{stamp} {record.levelname} {record.name}: {on_one_line(message)}"
        if trace is not None:
            line += f" trace_id={trace[0]} span_id={trace[1]}"
        return line if error is None else f"{line} | {on_one_line(error)}"


if TYPE_CHECKING:
    _TextHandler = logging.StreamHandler[TextIO]
else:
    # Not a generic class in Python 3.10, on which actors may run.
    _TextHandler = logging.StreamHandler


class LineHandler(_TextHandler):
    """Writes lines to a stream and counts them by level. Owns the counts, not the stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream if stream is not None else sys.stderr)
        self.lines: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        self.lines[level] = self.lines.get(level, 0) + 1
        super().emit(record)


def open_logs(
    environment: Mapping[str, str], *, default_level: str = "ERROR", process: str | None = None, stream: TextIO | None = None
) -> LineHandler:
    """Make the root logger write such lines, in the place of what it wrote to before.

    Raises:
        ConfigError: the environment names a level or a format that there is not.
    """
    level = (environment.get(LEVEL_VARIABLE) or default_level).upper()
    form = environment.get(FORMAT_VARIABLE) or LogFormat.TEXT
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"{LEVEL_VARIABLE} is {level!r}: choose DEBUG, INFO, WARNING, ERROR or CRITICAL")
    if form not in set(LogFormat):
        raise ConfigError(f"{FORMAT_VARIABLE} is {form!r}: choose text or json")
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, LineHandler)]:
        root.removeHandler(old)
    handler = LineHandler(stream)
    handler.setFormatter(LineFormatter(LogFormat(form), process=process))
    root.addHandler(handler)
    root.setLevel(level)
    return handler


def lines_logged() -> Mapping[str, int]:
    """Lines written by this process, by level in small letters."""
    counted: dict[str, int] = {}
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            for level, lines in tuple(handler.lines.items()):
                counted[level] = counted.get(level, 0) + lines
    return counted


def _hide(match: re.Match[str]) -> str:
    for kept in ("name", "flag", "scheme", "cookie", "url", "key"):
        if match[kept] is not None:
            return match[kept] + _HIDDEN
    return _HIDDEN


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_LINE_CHARS else f"{text[:MAX_LINE_CHARS]}… ({len(text)} characters)"


def on_one_line(text: str) -> str:
    """The text with an escape in the place of each character that is no printable one."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _current_trace() -> tuple[str, str] | None:
    """Trace and span id, where a span is current; a process that does not trace has not even loaded the library."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None
