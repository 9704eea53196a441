"""What all effects share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable


class Unavailable(Exception):
    """This machine cannot do it; the message says why, and the fault is told as skipped."""


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal for each; nothing happens to those that are gone by now: their fault has come by itself."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
