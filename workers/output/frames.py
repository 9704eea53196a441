"""What a worker process tells its pod's agent of what it prints: messages on a Unix socket of the pod, one packet each.

worker → agent   `Hello`, with three descriptors: the reading ends of the pipes behind 1 and 2, and the batch cell
agent → worker   `OutputLimits`, at once and whenever they change
worker → agent   `Frame`, any number
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from rayline.errors import WireError
from rayline.printed import Stream

SOCKET_NAME = "output.sock"
MAX_PACKET_BYTES = 256 * 1024
# Lines of one write go in packets of about so much.
PACKET_BYTES = 32 * 1024
MAX_NAME_CHARS = 256
MAX_HIDDEN = 64
MAX_HIDDEN_CHARS = 1_024


@dataclass(frozen=True, slots=True)
class Hello:
    """Who prints. `hidden` are values that no line may show: the secrets in the environment of this process."""

    app: str
    version: str
    actor: str
    instance: str
    pid: int
    hidden: tuple[str, ...] = ()

    def pack(self) -> bytes:
        hidden = [value for value in self.hidden if len(value) <= MAX_HIDDEN_CHARS][:MAX_HIDDEN]
        packed: bytes = msgpack.packb((self.app, self.version, self.actor, self.instance, self.pid, hidden))
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Hello:
        app, version, actor, instance, pid, hidden = _unpack(data, 6)
        if not isinstance(hidden, list):
            raise WireError("what is hidden is a list")
        texts = (app, version, actor, instance, *hidden)
        if not all(isinstance(text, str) and len(text) <= MAX_HIDDEN_CHARS for text in texts) or not isinstance(pid, int):
            raise WireError("a worker introduces itself by texts and a process id")
        return cls(app, version, actor, instance, pid, tuple(hidden[:MAX_HIDDEN]))


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines that were printed at one moment in one place (a traceback is one line). `at_ms` is this machine's wall clock."""

    at_ms: int
    stream: Stream
    lines: Sequence[bytes]
    batch: str | None = None
    job: str | None = None
    dropped: int = 0
    trace_id: str | None = None

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(
            (self.at_ms, self.stream.value, list(self.lines), self.batch, self.job, self.dropped, self.trace_id),
            use_bin_type=True,
        )
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Frame:
        at_ms, stream, lines, batch, job, dropped, trace_id = _unpack(data, 7)
        if (
            not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in (at_ms, dropped))
            or not all(name is None or (isinstance(name, str) and len(name) <= MAX_NAME_CHARS) for name in (batch, job, trace_id))
            or not isinstance(lines, list)
            or not all(isinstance(line, bytes) for line in lines)
        ):
            raise WireError("a frame is time, stream, lines, batch, job, a count and a trace")
        try:
            return cls(at_ms, Stream(stream), lines, batch, job, dropped, trace_id)
        except ValueError as error:
            raise WireError(f"not a stream of output: {error}") from error


def _unpack(data: bytes, count: int) -> Sequence[Any]:
    try:
        values = msgpack.unpackb(data, raw=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"not a message about output: {error!r}") from error
    if not isinstance(values, list) or len(values) != count:
        raise WireError(f"a message about output has {count} parts")
    return values
