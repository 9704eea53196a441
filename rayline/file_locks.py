"""Locks on files, which the kernel ends when their holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Be the only one who holds the lock of this file, which is made where it is missing; blocks while another does."""
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_locked(path: Path, *, access: int = os.O_RDWR) -> bool:
    """Whether anybody holds a lock on this file now, shared or not; a missing file is not locked.

    `access` is how it may be opened (flags of `os.open`).
    """
    try:
        handle = os.open(path, access | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class FileLease:
    """Keeps what a file stands for from being collected, by any process. Owns the open file whose lock it is."""

    def __init__(self, *, handle: int) -> None:
        self._handle: int | None = handle

    def release(self) -> None:
        """May be called more than once."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> FileLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
