"""A blob in a bucket, read by ranges of a moderate size: no byte beyond what was asked for leaves the bucket."""

from __future__ import annotations

from typing import BinaryIO, Final

# Each slice is a request: enough that its latency does not count, little enough that sixteen blobs at once fit into an agent.
SLICE_BYTES: Final = 2 * 2**20


class SlicedReads:
    """Owns an open file that keeps nothing back (fsspec's `cache_type="none"`), and the slice of it that was read last.

    Reads from front to back, at most `length` bytes where that is given. Life cycle: until `close`.
    """

    def __init__(self, *, file: BinaryIO, length: int | None) -> None:
        self._file = file
        self._left = length
        self._slice = b""
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all of them where that is negative; empty at the end."""
        parts: list[bytes] = []
        wanted = size
        while wanted and (part := self._take(wanted)):
            parts.append(part)
            wanted -= len(part) if wanted > 0 else 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._slice = b""
        self._file.close()

    def _take(self, wanted: int) -> bytes:
        """Of the slice, which is replaced when it is used up."""
        if self._at == len(self._slice):
            count = SLICE_BYTES if self._left is None else min(SLICE_BYTES, self._left)
            self._slice, self._at = self._file.read(count) if count else b"", 0
            if self._left is not None:
                self._left -= len(self._slice)
        end = len(self._slice) if wanted < 0 else min(self._at + wanted, len(self._slice))
        part, self._at = self._slice[self._at : end], end
        return part
