"""What users' code printed, as records of `rayline.logs`: one record holds lines of one worker process, in their order.

The key of a record is the node (`cluster/node`), so that a node's lines keep their order; its header `app` names the app, so that
readers need not open what is not for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from rayline.enums import StrEnum
from rayline.errors import FormatError

APP_HEADER: Final = "app"
MAX_RECORD_BYTES: Final = 1024 * 1024
_VERSION: Final = 1
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_NAMES: Final = ("cluster", "node", "app", "version", "actor", "instance")


class Stream(StrEnum):
    """Where a line comes from. DROPPED: Rayline's own word on lines that are missing here."""

    STDOUT = "stdout"
    STDERR = "stderr"
    TRACEBACK = "traceback"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """One line, or one whole traceback (the only text with line breaks). `at_ms` is the broker's time as far as it is known.

    `batch` is None where no batch, or more than one, may have printed it; `job` is None unless the function runs job by job.
    `dropped` counts the lines that are missing here. `trace_id` names the trace in which its batch ran, by 32 hexadecimal
    digits; None where none of its jobs was sampled.
    """

    at_ms: int
    stream: Stream
    text: str
    batch: str | None = None
    job: str | None = None
    dropped: int = 0
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Printer:
    """The worker process that printed. `actor` is its name in its cluster, `instance` is new for each process."""

    cluster: str
    node: str
    app: str
    version: str
    actor: str
    instance: str

    @property
    def place(self) -> str:
        return f"{self.cluster}/{self.node}"


@dataclass(frozen=True, slots=True)
class Printed:
    """One record: who printed, and what."""

    printer: Printer
    lines: tuple[PrintedLine, ...]


def encode_printed(printer: Printer, lines: Sequence[PrintedLine]) -> bytes:
    """One record value: msgpack."""
    rows = [(line.at_ms, line.stream.value, line.text, line.batch, line.job, line.dropped) for line in lines]
    traces = {line.batch: line.trace_id for line in lines if line.batch is not None and line.trace_id is not None}
    # Apart from the rows, which readers before it know, and once for each batch.
    more = {"traces": traces} if traces else {}
    packed: bytes = msgpack.packb({"v": _VERSION, **{name: getattr(printer, name) for name in _NAMES}, "lines": rows, **more})
    return packed


def decode_printed(value: bytes) -> Printed:
    """Read a record value; raises FormatError on anything else."""
    if len(value) > MAX_RECORD_BYTES:
        raise FormatError(f"a record of {len(value)} bytes; one of printed lines has at most {MAX_RECORD_BYTES}")
    try:
        data: Any = msgpack.unpackb(value, raw=False)
        if data["v"] != _VERSION:
            raise FormatError(f"printed lines of version {data['v']!r}; this Rayline reads version {_VERSION}")
        names = [data[name] for name in _NAMES]
        if not all(isinstance(name, str) for name in names):
            raise FormatError(f"who printed is told in text: {names!r:.200}")
        traces = {batch: trace_id for batch, trace_id in data.get("traces", {}).items() if _is_trace_id(trace_id)}
        return Printed(Printer(*names), tuple(_line(traces, *row) for row in data["lines"]))
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"not printed lines: {error!r}") from error


def _is_trace_id(value: Any) -> bool:
    return isinstance(value, str) and _TRACE_ID.fullmatch(value) is not None


def _line(traces: Mapping[Any, str], at_ms: Any, stream: Any, text: Any, batch: Any, job: Any, dropped: Any) -> PrintedLine:
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (at_ms, dropped))
    if not whole or not isinstance(text, str) or not all(isinstance(name, str | None) for name in (batch, job)):
        raise TypeError(
            f"a line is time, stream, text, batch, job and a count, not {(at_ms, stream, batch, job, dropped)!r:.200}"
        )
    return PrintedLine(at_ms, Stream(stream), text, batch, job, dropped, traces.get(batch))
