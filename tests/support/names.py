"""Names that no other test uses."""

from __future__ import annotations

import itertools
import os

_counter = itertools.count()


def fresh(prefix: str) -> str:
    """`prefix` with a suffix that is unique on this broker."""
    return f"{prefix}-{os.getpid()}-{next(_counter)}"
