"""In a worker process: takes over stdout and stderr, from `sys.stdout` down to the descriptors, and tells the pod's agent each
line with the batch and job that printed it.

Carried to the worker by value, as `workers.actor` is: no logger, lock, context variable or `struct.Struct` among its globals.
"""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rayline.errors import WireError
from rayline.logs import holds_secret
from rayline.printed import Stream
from rayline.wire import unpack_job_ids
from workers.output.cell import BatchCell
from workers.output.cutting import LineCutter
from workers.output.frames import PACKET_BYTES, SOCKET_NAME, Frame, Hello
from workers.output.limits import LineBudget, OutputLimits
from workers.run import Run

CONNECT_SECONDS = 2.0
PIPE_BYTES = 1024 * 1024
SEND_BUFFER_BYTES = 1024 * 1024
# Lines that were begun and not ended, one for each thread and job that prints.
MAX_OPEN_LINES = 256
TELL_SECONDS = 1.0
LOOK_SECONDS = 0.5
STDOUT_FD = 1
STDERR_FD = 2

# Descriptor, thread, batch, position in it.
Place = tuple[int, int, "Run | None", "int | None"]


class OutputCapture:
    """Owns what stands behind descriptors 1 and 2 and `sys.stdout` and `sys.stderr` of this process, and the connection to the
    agent. Does not own the limits (the agent tells them), nor what becomes of a line.

    What is printed through Python never waits: where the agent does not keep up, lines are dropped and counted. What is written
    past Python goes through pipes that the agent reads, so that the last words of a process that dies are not lost.

    Life cycle: `begin` and `end` around the calls for one batch, `enter` in each coroutine; it stays for the life of the process.
    """

    def __init__(self, *, connection: socket.socket, cell: BatchCell, clock: Callable[[], float] = time.monotonic) -> None:
        """`connection` has taken the hello."""
        self._connection = connection
        self._cell = cell
        self._clock = clock
        self._lock = threading.RLock()
        self._place: contextvars.ContextVar[tuple[Run, int | None] | Run | None] = contextvars.ContextVar("place", default=None)
        self._active: list[Run] = []
        self._open: dict[Place, LineCutter] = {}
        self._limits = OutputLimits()
        self._budget = LineBudget(self._limits, now=clock())
        self._looked_at = clock()
        self._dropped = 0
        self._told_at = 0.0
        os.register_at_fork(after_in_child=self._forked)

    def begin(self, run: Run) -> None:
        """The calls for this batch begin, in this thread."""
        self._place.set(run)
        with self._lock:
            self._active.append(run)
            if len(self._active) == 1:
                self._cell.begin(run.head.batch, run.head.trace_id, self._clock())
            else:
                self._cell.end(self._clock())

    def enter(self, run: Run, index: int | None) -> None:
        """What runs in this context from now on is the call for this job (None: for the whole batch)."""
        self._place.set((run, index))

    def end(self, run: Run) -> None:
        """They are over; a line that was not ended ends here, and what was dropped is told."""
        self._place.set(None)
        with self._lock:
            self._active.remove(run)
            self._cell.end(self._clock())
            if self._open or self._dropped or run.lines_dropped:
                self._close_batch(run)

    def write(self, fd: int, data: bytes) -> None:
        """What Python code printed to 1 or 2, of any length and content. Never blocks, never raises for what becomes of it."""
        with self._lock:
            now = self._clock()
            if now - self._looked_at >= LOOK_SECONDS:
                self._look_for_limits(now)
            if not self._limits.enabled or not data:
                return
            run, index = self._where()
            place = (fd, threading.get_ident(), run, index)
            cutter = self._open.get(place) or self._open_line(place)
            if b"\n" not in data:
                cutter.hold(data)
                return
            lines, skipped = cutter.feed(data, self._room(run, now))
            if cutter.empty:
                self._open.pop(place, None)
            self._pass_on(place, lines, skipped, now)

    def traceback(self, text: str) -> None:
        """A traceback of the job at hand; their number is limited where they are made."""
        with self._lock:
            self._look_for_limits(self._clock())
            if self._limits.enabled:
                self._send(Stream.TRACEBACK, [text.encode("utf-8", "backslashreplace")], *self._where())

    def _where(self) -> tuple[Run | None, int | None]:
        place = self._place.get()
        if place is None:
            # A thread of the user's own: where one batch runs, it is that one's.
            return (self._active[0] if len(self._active) == 1 else None), None
        return place if isinstance(place, tuple) else (place, place.position)

    def _room(self, run: Run | None, now: float) -> int:
        room = self._budget.room(now)
        return room if run is None else max(0, min(room, self._limits.batch_lines - run.lines_printed))

    def _pass_on(self, place: Place, lines: Sequence[bytes], skipped: int, now: float) -> None:
        fd, _, run, index = place
        passed = 0
        for line in lines:
            if not self._budget.take(len(line)):
                break
            passed += 1
        dropped = skipped + len(lines) - passed
        if run is not None:
            run.lines_printed += passed
            run.lines_dropped += dropped
        else:
            self._dropped += dropped
        if passed:
            self._send(Stream.STDERR if fd == STDERR_FD else Stream.STDOUT, lines[:passed], run, index)
        if self._dropped and now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self._tell_dropped()

    def _close_batch(self, run: Run) -> None:
        now = self._clock()
        for place in [place for place in self._open if place[2] is run]:
            self._end_line(place, now)
        if run.lines_dropped:
            count, run.lines_dropped = run.lines_dropped, 0
            self._send(Stream.DROPPED, [], run, None, dropped=count)
        if self._dropped:
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        count, self._dropped = self._dropped, 0
        self._send(Stream.DROPPED, [], None, None, dropped=count)

    def _open_line(self, place: Place) -> LineCutter:
        if len(self._open) >= MAX_OPEN_LINES:
            self._end_line(next(iter(self._open)), self._clock())
        cutter = self._open[place] = LineCutter(self._limits.line_bytes)
        return cutter

    def _end_line(self, place: Place, now: float) -> None:
        line = self._open.pop(place).end()
        if line is not None:
            fits = self._room(place[2], now) > 0
            self._pass_on(place, [line] if fits else [], int(not fits), now)

    def _send(self, stream: Stream, lines: Sequence[bytes], run: Run | None, index: int | None, *, dropped: int = 0) -> None:
        at_ms = int(time.time() * 1000)
        batch, trace_id = (None, None) if run is None else (run.head.batch, run.head.trace_id)
        job = None if run is None or index is None else _job_id(run, index)
        for part in _parts(lines):
            packet = Frame(at_ms, stream, part, batch, job, dropped, trace_id).pack()
            try:
                self._connection.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:
                # The agent does not keep up, or is gone.
                self._dropped += len(part) + dropped

    def _look_for_limits(self, now: float) -> None:
        self._looked_at = now
        with contextlib.suppress(OSError, WireError):
            while packet := self._connection.recv(PACKET_BYTES, socket.MSG_DONTWAIT):
                self._limits = OutputLimits.unpack(packet)
                self._budget.tune(self._limits)

    def _forked(self) -> None:
        """Another thread may have held the lock when the user's code forked."""
        self._lock = threading.RLock()


class CapturedText(io.TextIOBase):
    """`sys.stdout` or `sys.stderr`. Closing it has no effect."""

    def __init__(self, capture: OutputCapture, fd: int) -> None:
        self._write = capture.write
        self._fd = fd
        self.buffer = CapturedBytes(capture, fd)
        self.name = "<stderr>" if fd == STDERR_FD else "<stdout>"
        self.mode = "w"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    @property
    def line_buffering(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._write(self._fd, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def reconfigure(self, **_: Any) -> None:
        """As a text file has it: here everything is told line by line, in UTF-8, whatever is asked for."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        return None


class CapturedBytes(io.RawIOBase):
    """`sys.stdout.buffer`. Closing it has no effect."""

    def __init__(self, capture: OutputCapture, fd: int) -> None:
        self._capture = capture
        self._fd = fd

    def write(self, data: Any, /) -> int:
        raw = bytes(data)
        self._capture.write(self._fd, raw)
        return len(raw)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        return None


def capture_output(folder: Path, hello: Hello) -> OutputCapture | None:
    """Take over stdout and stderr of this process for the agent whose socket lies in the pod's `folder`; None, with a line on
    stderr, where there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    cell = BatchCell()
    pipes = [os.pipe() for _ in range(2)]
    readers, writers = [pipe[0] for pipe in pipes], [pipe[1] for pipe in pipes]
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(str(folder / SOCKET_NAME))
        socket.send_fds(connection, [hello.pack()], [*readers, cell.fd])
        connection.setblocking(True)
        for writer in writers:
            # Where this user has too many large pipes already, a small one does.
            with contextlib.suppress(OSError):
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        capture = OutputCapture(connection=connection, cell=cell)
        for fd, writer in zip((STDOUT_FD, STDERR_FD), writers, strict=True):
            os.dup2(writer, fd)
    except OSError as error:
        connection.close()
        sys.stderr.write(f"rayline: what this process prints is not kept: no agent in {folder}: {error}\n")
        return None
    finally:
        for fd in (*readers, *writers):
            os.close(fd)
    sys.stdout = CapturedText(capture, STDOUT_FD)
    sys.stderr = CapturedText(capture, STDERR_FD)
    return capture


def secrets_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables whose names say that nobody should read them."""
    return tuple(value for name, value in environment.items() if holds_secret(name, value))


def _job_id(run: Run, index: int) -> str | None:
    if run.job_ids is None:
        try:
            run.job_ids = unpack_job_ids(run.head.jobs)
        except WireError:
            run.job_ids = []
    return run.job_ids[index] if index < len(run.job_ids) else None


def _parts(lines: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Lines in packets of bounded size; one empty packet where there are none."""
    parts: list[Sequence[bytes]] = []
    begin = size = 0
    for end, line in enumerate(lines):
        if size and size + len(line) > PACKET_BYTES:
            parts.append(lines[begin:end])
            begin, size = end, 0
        size += len(line)
    parts.append(lines[begin:])
    return parts
