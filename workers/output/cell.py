"""Which batch runs in a worker process now, in memory that it shares with its pod's agent: what is written past Python (by C
libraries, by child processes) does not say whose it is."""

from __future__ import annotations

import mmap
import os
import struct

# Sequence; the batch that runs, since when; the one before, until when. Monotonic seconds, which a machine's processes share.
_CELL = "=Q96sd96sd"
_SEQUENCE = "=Q"
CELL_BYTES = 4_096
# What is read now was written within this time.
READ_WITHIN_SECONDS = 0.05


class BatchCell:
    """Owns the memory, as the one process that writes it. `fd` is what the other one maps."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("rayline-batch", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, CELL_BYTES)
        self._memory = mmap.mmap(self.fd, CELL_BYTES)
        self._sequence = 0
        self._running = b""
        self._since = 0.0
        self._ended = b""
        self._until = 0.0

    def begin(self, batch: str, now: float) -> None:
        """This batch runs, and no other one does."""
        self._running, self._since = batch.encode(), now
        self._write()

    def end(self, now: float) -> None:
        """None runs, or several do."""
        self._ended, self._until = self._running, now
        self._running = b""
        self._write()

    def _write(self) -> None:
        self._sequence += 2
        # A reader takes nothing between an odd number and the even one after it.
        struct.pack_into(_CELL, self._memory, 0, self._sequence - 1, self._running, self._since, self._ended, self._until)
        struct.pack_into(_SEQUENCE, self._memory, 0, self._sequence)


class CellReader:
    """Owns a view of another process's cell, until `close`."""

    def __init__(self, fd: int) -> None:
        """Raises OSError or ValueError when it is no such memory."""
        self._memory = mmap.mmap(fd, CELL_BYTES, prot=mmap.PROT_READ)

    def close(self) -> None:
        self._memory.close()

    def writer(self, now: float) -> str | None:
        """The one batch that ran within the last moment; None where there was none, or may have been more than one."""
        sequence, running, _, ended, until = struct.unpack_from(_CELL, self._memory, 0)
        if sequence % 2 or struct.unpack_from(_SEQUENCE, self._memory, 0)[0] != sequence:
            return None
        recent = [running.rstrip(b"\0")]
        if now - until < READ_WITHIN_SECONDS:
            recent.append(ended.rstrip(b"\0"))
        batches = [batch for batch in recent if batch]
        return batches[0].decode("utf-8", "replace") if len(batches) == 1 else None
