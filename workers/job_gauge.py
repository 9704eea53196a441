"""How many jobs are with one actor, as a number in a small file that its pod's agent reads with each beat."""

from __future__ import annotations

import os
from pathlib import Path

GAUGE_SUFFIX = ".jobs"
_DIGITS = 12


class JobGauge:
    """Owns one file, written only when the number changes. Does not own what is counted; the file dies with the pod's folder."""

    def __init__(self, entry: Path) -> None:
        """`entry` is the path of the actor's entry without its suffix."""
        self._fd = os.open(entry.with_suffix(GAUGE_SUFFIX), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._shown: int | None = None
        self.show(0)

    def show(self, jobs: int) -> None:
        if jobs != self._shown:
            # One write of one length: a reader sees the number before or the number after.
            os.pwrite(self._fd, b"%*d" % (_DIGITS, jobs), 0)
            self._shown = jobs


def read_gauge(path: str) -> int | None:
    """The number in the file; None when it is not there or says none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, _DIGITS).strip()
    finally:
        os.close(fd)
    return int(text) if text.isdigit() else None
