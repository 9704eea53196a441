"""A blob that is read from elsewhere: whatever its client raises in the middle is one of our errors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import BinaryIO


class ToldReads:
    """Owns an open file; each read runs inside of `telling`, which turns what the client raises into a StoreError.

    Does not own the rest of a file's interface: blobs are read from front to back. Life cycle: a context manager, once.
    """

    def __init__(self, *, file: BinaryIO, telling: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._telling = telling

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all of them where that is negative; empty at the end; raises StoreError."""
        with self._telling():
            return self._file.read(size)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ToldReads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
