"""How far a long reading, packing or writing of bytes is, as those who wait for it are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfer:
    """`done_bytes` of `total_bytes` (None: not known) of one piece of work, which `what` names; the next one has another name."""

    what: str
    done_bytes: int
    total_bytes: int | None


OnTransfer = Callable[[Transfer], None]
# Told how many bytes more there are.
OnBytes = Callable[[int], None]


def unheard(_: object) -> None:
    """Nobody waits for it."""


def counted(what: str, total_bytes: int | None, tell: OnTransfer) -> OnBytes:
    """Tells `tell` of the beginning, and then of the sum of what it is given."""
    done_bytes = 0

    def more(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        tell(Transfer(what, done_bytes, total_bytes))

    more(0)
    return more
