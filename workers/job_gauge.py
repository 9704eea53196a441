"""How many jobs are with one actor, and how many it ran, as numbers in a small file that its pod's agent reads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

GAUGE_SUFFIX = ".jobs"
_DIGITS = 12
_LINE_BYTES = 3 * (_DIGITS + 1)


@dataclass(frozen=True, slots=True)
class Gauged:
    """Jobs that are `here` now, and what was run since the process began."""

    here: int
    jobs: int = 0
    batches: int = 0


class JobGauge:
    """Owns one file, written only when a number changes. Does not own what is counted; the file dies with the pod's folder."""

    def __init__(self, entry: Path) -> None:
        """`entry` is the path of the actor's entry without its suffix."""
        self._fd = os.open(entry.with_suffix(GAUGE_SUFFIX), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._shown: Gauged | None = None
        self.show(Gauged(0))

    def show(self, gauged: Gauged) -> None:
        if gauged != self._shown:
            # One write of one length: a reader sees the numbers before or the numbers after.
            numbers = (_DIGITS, gauged.here, _DIGITS, gauged.jobs, _DIGITS, gauged.batches)
            os.pwrite(self._fd, b"%*d %*d %*d\n" % numbers, 0)
            self._shown = gauged


def read_gauge(path: str) -> Gauged | None:
    """The numbers in the file; None when it is not there or says none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        numbers = os.read(fd, _LINE_BYTES).split()
    finally:
        os.close(fd)
    return Gauged(*map(int, numbers)) if 0 < len(numbers) <= 3 and all(map(bytes.isdigit, numbers)) else None
