"""Which batch runs in a worker process now, in memory that it shares with its pod's agent: what is written past Python (by C
libraries, by child processes) does not say whose it is."""

from __future__ import annotations

import mmap
import os
import struct

# Sequence; the batch that runs, its trace, since when; the one before, until when. Monotonic seconds, which a machine's processes
# share.
_CELL = "=Q96s32sd96s32sd"
_SEQUENCE = "=Q"
CELL_BYTES = 4_096
_NONE = (b"", b"")
# What is read now was written within this time.
READ_WITHIN_SECONDS = 0.05


class BatchCell:
    """Owns the memory, as the one process that writes it. `fd` is what the other one maps."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("rayline-batch", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, CELL_BYTES)
        self._memory = mmap.mmap(self.fd, CELL_BYTES)
        self._sequence = 0
        self._running = self._ended = _NONE
        self._since = self._until = 0.0

    def begin(self, batch: str, trace_id: str | None, now: float) -> None:
        """This batch runs, and no other one does."""
        self._running, self._since = (batch.encode(), (trace_id or "").encode()), now
        self._write()

    def end(self, now: float) -> None:
        """None runs, or several do."""
        self._ended, self._until = self._running, now
        self._running = _NONE
        self._write()

    def _write(self) -> None:
        self._sequence += 2
        # A reader takes nothing between an odd number and the even one after it.
        struct.pack_into(_CELL, self._memory, 0, self._sequence - 1, *self._running, self._since, *self._ended, self._until)
        struct.pack_into(_SEQUENCE, self._memory, 0, self._sequence)


class CellReader:
    """Owns a view of another process's cell, until `close`."""

    def __init__(self, fd: int) -> None:
        """Raises OSError or ValueError when it is no such memory."""
        self._memory = mmap.mmap(fd, CELL_BYTES, prot=mmap.PROT_READ)

    def close(self) -> None:
        self._memory.close()

    def writer(self, now: float) -> tuple[str | None, str | None]:
        """The one batch that ran within the last moment, and its trace; None where there was none, or may have been more than
        one."""
        sequence, running, trace, _, ended, ended_trace, until = struct.unpack_from(_CELL, self._memory, 0)
        if sequence % 2 or struct.unpack_from(_SEQUENCE, self._memory, 0)[0] != sequence:
            return None, None
        recent = [(_text(running), _text(trace))]
        if now - until < READ_WITHIN_SECONDS:
            recent.append((_text(ended), _text(ended_trace)))
        batches = [(batch, trace) for batch, trace in recent if batch is not None]
        return batches[0] if len(batches) == 1 else (None, None)


def _text(field: bytes) -> str | None:
    return field.rstrip(b"\0").decode("utf-8", "replace") or None
