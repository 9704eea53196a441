"""What `up` tells while it starts: one line for each part, with how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Step:
    """A part that is being started; `done` may say more than that it is."""

    def __init__(self) -> None:
        self.outcome = "ready"

    def done(self, outcome: str) -> None:
        self.outcome = outcome


class StartupLog:
    """Writes to stderr: a line when a part begins, one when it is ready. Quiet where nobody wants to read it."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._begun = time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        begun = time.monotonic()
        self.say(f"{what} …")
        step = Step()
        yield step
        self.say(f"{what}: {step.outcome} ({time.monotonic() - begun:.1f} s)")

    def say(self, text: str) -> None:
        if not self._quiet:
            print(f"[{time.monotonic() - self._begun:6.1f} s] {text}", file=self._stream, flush=True)

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._begun
