"""Files that are whole or not there: written beside, synced, renamed."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rayline.errors import DiskFull

# As the C library, Rust (uv) and conda say it.
_FULL: Final = re.compile(r"No space left on device|Disk quota exceeded|NoSpaceLeftError|\(os error (28|122)\)")


@contextmanager
def disk_full_told(path: Path) -> Iterator[None]:
    """Turn "no space left" (and an exhausted quota) below `path` into DiskFull with its remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room left at {path}: {error.strerror}; make room or use another disk, then try again") from error
        raise


def says_disk_full(text: str) -> bool:
    """Whether what another program said means that there was no room."""
    return _FULL.search(text) is not None


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` with `data` so that a crash at any moment leaves the old or the new bytes; raises DiskFull."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_told(path.parent):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
