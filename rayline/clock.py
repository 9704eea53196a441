"""Broker time without trusting this machine's wall clock: deadlines are compared by it, durations by the monotonic clock."""

from __future__ import annotations

import time


class BrokerClock:
    """Maps this process's monotonic clock (seconds) to the broker's epoch milliseconds.

    Owns one offset. Starts from the local wall clock and is corrected by each observation: a record read at `t` was appended
    before `t`; a record appended between `t0` and `t1` bounds the offset from both sides. Clamping into the newest bounds
    alone follows drift and jumps of either clock without a memory that could be poisoned.
    """

    __slots__ = ("_offset_ms",)

    def __init__(self, *, wall_ms: float | None = None, monotonic: float | None = None) -> None:
        wall = time.time() * 1000 if wall_ms is None else wall_ms
        self._offset_ms = wall - (time.monotonic() if monotonic is None else monotonic) * 1000

    def at(self, monotonic: float) -> float:
        """Broker epoch milliseconds at a monotonic instant (seconds)."""
        return monotonic * 1000 + self._offset_ms

    def monotonic_at(self, broker_ms: float) -> float:
        """The monotonic instant (seconds) of a broker time (epoch milliseconds)."""
        return (broker_ms - self._offset_ms) / 1000

    def observe_read(self, *, append_ms: int, read_at: float) -> None:
        """A record with the broker's append time was in our hands at `read_at` (monotonic seconds)."""
        self._offset_ms = max(self._offset_ms, append_ms - read_at * 1000)

    def observe_append(self, *, append_ms: int, sent_at: float, acknowledged_at: float) -> None:
        """The broker appended a record of ours at `append_ms`, between two monotonic instants (seconds)."""
        lowest = append_ms - acknowledged_at * 1000
        highest = append_ms + 1 - sent_at * 1000
        self._offset_ms = min(max(self._offset_ms, lowest), highest)
