"""In a pod's agent: reads what the pod's workers print, limits and cleans it, and puts it into the outbox."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rayline.errors import WireError
from rayline.printed import PrintedLine, Printer, Stream
from workers.failures import MAX_TRACEBACKS_PER_SECOND
from workers.output.cell import CellReader
from workers.output.cleaning import clean_line, clean_traceback
from workers.output.cutting import LineCutter
from workers.output.frames import MAX_PACKET_BYTES, SOCKET_NAME, Frame, Hello
from workers.output.limits import LineBudget, OutputLimits
from workers.output.outbox import Outbox

MAX_WORKERS: Final = 256
READ_BYTES: Final = 256 * 1024
RECEIVE_BUFFER_BYTES: Final = 1024 * 1024
PACKETS_A_TURN: Final = 64
TELL_SECONDS: Final = 1.0
# Tracebacks have room of their own, so that a chatty function does not cost them: twice what a worker sends.
_TRACEBACKS: Final = OutputLimits(lines_per_second=2 * MAX_TRACEBACKS_PER_SECOND, bytes_per_second=2**20, line_bytes=2**15)
# What the cutter adds to a line that it cut.
_CUT_MARK_BYTES: Final = 64
# After the system refused a connection: it would refuse the next one at once.
REFUSED_SECONDS: Final = 0.2
_TOO_MUCH: Final = "more than logs.lines_per_second, logs.bytes_per_second or logs.batch_lines allow"

_log = logging.getLogger(__name__)


class OutputIntake:
    """Owns the pod's socket for output, the connections and pipes of its workers, and the thread that reads them.

    Does not own the outbox, nor trust a worker: what it sends is bounded, and what is not of the protocol ends the connection.

    Life cycle: `start` → `set_limits` at any time → `finish` reads what is left and ends the thread.
    """

    def __init__(
        self, *, folder: Path, cluster: str, node: str, outbox: Outbox, skew_ms: Callable[[], float | None] = lambda: None
    ) -> None:
        """`skew_ms` tells this machine's wall clock minus the broker's, where it is known."""
        self._path = folder / SOCKET_NAME
        self._cluster = cluster
        self._node = node
        self._outbox = outbox
        self._skew_ms = skew_ms
        self._limits = OutputLimits()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._workers: set[_Worker] = set()
        self._told = self._limits
        self._stop_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="rayline-output", daemon=True)

    def start(self) -> None:
        """Listen. Raises OSError when the folder cannot hold a socket."""
        try:
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError:
            self._close()
            raise
        self._listener.listen(MAX_WORKERS)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)
        self._thread.start()

    def set_limits(self, limits: OutputLimits) -> None:
        """From now on, in workers that run as well."""
        self._limits = limits
        os.eventfd_write(self._wake_fd, 1)

    def finish(self, timeout_seconds: float) -> None:
        """Read until every worker has ended, but no longer than this; then close everything. Blocks."""
        self._stop_at = time.monotonic() + timeout_seconds
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            if now >= self._stop_at or (self._stop_at < float("inf") and not self._workers):
                break
            owing = any(worker.dropped for worker in self._workers)
            timeout = min(self._stop_at - now, TELL_SECONDS if owing else float("inf"))
            for key, _ in self._selector.select(None if timeout == float("inf") else timeout):
                key.data()
            if owing:
                self._tell_dropped()
        for worker in tuple(self._workers):
            self._end(worker)
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        self._selector.close()
        self._listener.close()
        os.close(self._wake_fd)

    def _woken(self) -> None:
        os.eventfd_read(self._wake_fd)
        if self._told is not self._limits:
            self._told = self._limits
            for worker in self._workers:
                worker.set_limits(self._limits)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            _log.error("a worker of pod %s/%s cannot be heard: %s", self._cluster, self._node, error)
            threading.Event().wait(REFUSED_SECONDS)
            return
        if len(self._workers) >= MAX_WORKERS:
            _log.error("output of a worker is not kept: the pod has %d already", MAX_WORKERS)
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        worker = _Worker(connection, self._limits)
        self._workers.add(worker)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read_packets(worker))

    def _read_packets(self, worker: _Worker) -> None:
        if worker not in self._workers:
            return
        try:
            for _ in range(PACKETS_A_TURN):
                if worker.printer is None:
                    packet, fds, _, _ = socket.recv_fds(worker.connection, MAX_PACKET_BYTES, 4)
                    self._greet(worker, packet, fds)
                    continue
                packet = worker.connection.recv(MAX_PACKET_BYTES)
                if not packet:
                    self._leave(worker, worker.connection)
                    return
                self._take_frame(worker, worker.printer, Frame.unpack(packet))
        except (BlockingIOError, ConnectionResetError):
            # Reset: it died without having read its limits. What it sent before is there, and comes next.
            return
        except (WireError, OSError, ValueError) as error:
            _log.warning("output of a worker of pod %s/%s is no longer kept: %s", self._cluster, self._node, error)
            self._end(worker)

    def _greet(self, worker: _Worker, packet: bytes, fds: Sequence[int]) -> None:
        worker.fds = list(fds)
        if len(fds) != 3:
            raise WireError(f"a worker sends three descriptors with its first words, not {len(fds)}")
        hello = Hello.unpack(packet)
        worker.cell = CellReader(fds[2])
        worker.hidden = hello.hidden
        for fd, stream in zip(fds, (Stream.STDOUT, Stream.STDERR), strict=False):
            os.set_blocking(fd, False)
            worker.cutters[fd] = (stream, LineCutter(self._limits.line_bytes))
            self._selector.register(fd, selectors.EVENT_READ, lambda fd=fd: self._read_pipe(worker, fd))
        worker.printer = Printer(self._cluster, self._node, hello.app, hello.version, hello.actor, hello.instance)
        worker.set_limits(self._limits)

    def _take_frame(self, worker: _Worker, printer: Printer, frame: Frame) -> None:
        at_ms = self._broker_ms(frame.at_ms)
        if frame.stream is Stream.DROPPED:
            self._outbox.put(
                printer, PrintedLine(at_ms, Stream.DROPPED, _TOO_MUCH, frame.batch, None, frame.dropped, frame.trace_id)
            )
            return
        is_traceback = frame.stream is Stream.TRACEBACK
        budget = worker.tracebacks if is_traceback else worker.said
        budget.room(time.monotonic())
        for raw in frame.lines:
            raw = raw[: (_TRACEBACKS if is_traceback else self._limits).line_bytes + _CUT_MARK_BYTES]
            if not self._limits.enabled:
                return
            if budget.take(len(raw)):
                text = (clean_traceback if is_traceback else clean_line)(raw, worker.hidden)
                self._outbox.put(printer, PrintedLine(at_ms, frame.stream, text, frame.batch, frame.job, 0, frame.trace_id))
            else:
                worker.dropped += 1

    def _read_pipe(self, worker: _Worker, fd: int) -> None:
        if worker not in self._workers:
            return
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            # A worker may send any descriptor.
            _log.warning("output of a worker of pod %s/%s is no longer kept: %s", self._cluster, self._node, error)
            self._end(worker)
            return
        stream, cutter = worker.cutters[fd]
        now = time.monotonic()
        room = worker.past.room(now) if self._limits.enabled else 0
        if data:
            lines, skipped = cutter.feed(data, room)
        else:
            last = cutter.end()
            lines, skipped = ([last], 0) if last is not None and room else ([], 0)
        self._take_written(worker, stream, lines, skipped, now)
        if not data:
            self._leave(worker, fd)

    def _take_written(self, worker: _Worker, stream: Stream, lines: Sequence[bytes], skipped: int, now: float) -> None:
        if not self._limits.enabled or worker.printer is None or worker.cell is None:
            return
        worker.dropped += skipped
        batch, trace_id = worker.cell.writer(now) if lines else (None, None)
        at_ms = self._broker_ms(time.time() * 1000)
        for raw in lines:
            if worker.past.take(len(raw)):
                self._outbox.put(
                    worker.printer, PrintedLine(at_ms, stream, clean_line(raw, worker.hidden), batch, None, 0, trace_id)
                )
            else:
                worker.dropped += 1

    def _tell_dropped(self) -> None:
        now, at_ms = time.monotonic(), self._broker_ms(time.time() * 1000)
        for worker in self._workers:
            if worker.dropped and worker.printer is not None and now - worker.told_at >= TELL_SECONDS:
                worker.told_at = now
                count, worker.dropped = worker.dropped, 0
                self._outbox.put(worker.printer, PrintedLine(at_ms, Stream.DROPPED, _TOO_MUCH, dropped=count))

    def _broker_ms(self, at_ms: float) -> int:
        return max(0, round(at_ms - (self._skew_ms() or 0.0)))

    def _leave(self, worker: _Worker, source: socket.socket | int) -> None:
        """One of a worker's three sources ended; with the last one it is gone."""
        self._selector.unregister(source)
        if isinstance(source, int):
            del worker.cutters[source]
        else:
            worker.connection.close()
        if worker.connection.fileno() < 0 and not worker.cutters:
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        """Let go of it; an event of it that was noticed before finds it gone."""
        self._workers.remove(worker)
        if worker.dropped and worker.printer is not None:
            at_ms = self._broker_ms(time.time() * 1000)
            self._outbox.put(worker.printer, PrintedLine(at_ms, Stream.DROPPED, _TOO_MUCH, dropped=worker.dropped))
        sources: tuple[socket.socket | int, ...] = (worker.connection, *worker.cutters)
        for source in sources:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(source)
        worker.close()


class _Worker:
    """One worker process: its connection, its pipes, and what it may still print."""

    def __init__(self, connection: socket.socket, limits: OutputLimits) -> None:
        self.connection = connection
        self.printer: Printer | None = None
        self.cell: CellReader | None = None
        self.hidden: tuple[str, ...] = ()
        self.fds: list[int] = []
        self.cutters: dict[int, tuple[Stream, LineCutter]] = {}
        now = time.monotonic()
        # The worker limits by itself what Python prints there; a larger bucket leaves alone what it let pass.
        self.said = LineBudget(limits, now=now, burst_seconds=2.0)
        self.past = LineBudget(limits, now=now)
        self.tracebacks = LineBudget(_TRACEBACKS, now=now)
        self.dropped = 0
        self.told_at = 0.0

    def set_limits(self, limits: OutputLimits) -> None:
        self.said.tune(limits)
        self.past.tune(limits)
        for _, cutter in self.cutters.values():
            cutter.max_bytes = limits.line_bytes
        # A worker that does not read what it is told keeps what it was told before; here the new ones hold at once.
        with contextlib.suppress(OSError):
            self.connection.send(limits.pack(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self.connection.close()
        if self.cell is not None:
            self.cell.close()
        for fd in self.fds:
            os.close(fd)
