"""Bounds how many calls of the feature function run at once in one actor, and how many batches may wait for their turn."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from rayline.wire import Verdict

# A lane knows of its own batches only: where another lane's takes longer than this, it has another actor that is free.
PATIENCE_SECONDS: Final = 0.2
# Behind several quick calls it waits longer than that: it would only come again.
PATIENCE_CALLS: Final = 5
MAX_PATIENCE_SECONDS: Final = 1.0
CALL_SHARE: Final = 0.2


class _Waiter:
    __slots__ = ("admitted", "turned_away", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.admitted = False
        self.turned_away: Verdict | None = None

    def turn_away(self, verdict: Verdict) -> None:
        self.turned_away = verdict
        self.woken.set()


class CallGate:
    """First come, first served, after a short wait at most. Owns the permits and the queue of waiting batches; does not own what
    runs inside.

    Who must be alone gets all permits: it waits for those inside, and from its arrival to its end all others are answered BUSY.

    Life cycle: open until `drain`; from then on every batch that has not entered is answered DRAINING.
    """

    def __init__(self, *, permits: int, max_waiting: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._lock = threading.Lock()
        self._permits = permits
        self._free = permits
        self._max_waiting = max_waiting
        self._patience_seconds = patience_seconds
        self._call_seconds = 0.0  # a mean of the last calls'
        self._waiters: deque[_Waiter] = deque()
        self._alone = False
        self._draining = False

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def enter(self, timeout_seconds: float, *, alone: bool = False) -> Verdict | None:
        """None: entered, `leave` must follow. BUSY: too many wait, or no turn came in time; who need not be alone waits no longer
        than the gate's patience. DRAINING: no more calls begin."""
        with self._lock:
            if self._draining:
                return Verdict.DRAINING
            if self._alone:
                return Verdict.BUSY
            if alone:
                self._alone = True
                self._turn_all_away(Verdict.BUSY)
            wanted = self._permits if alone else 1
            if self._free >= wanted:
                self._free -= wanted
                return None
            if len(self._waiters) >= self._max_waiting and not alone:
                return Verdict.BUSY
            waiter = _Waiter()
            self._waiters.append(waiter)
        waiter.woken.wait(timeout_seconds if alone else min(timeout_seconds, self._patience()))
        with self._lock:
            if waiter.admitted:
                return None
            if alone:
                self._alone = False
            if waiter.turned_away is None:
                self._waiters.remove(waiter)
                return Verdict.BUSY
            return waiter.turned_away

    def leave(self, *, alone: bool = False, seconds: float | None = None) -> None:
        """As it entered; `seconds` is how long it was inside."""
        with self._lock:
            if seconds is not None:
                self._call_seconds += CALL_SHARE * (seconds - self._call_seconds)
            self._free += self._permits if alone else 1
            self._alone = self._alone and not alone
            wanted = self._permits if self._alone else 1
            if self._waiters and self._free >= wanted:
                self._free -= wanted
                waiter = self._waiters.popleft()
                waiter.admitted = True
                waiter.woken.set()

    def drain(self) -> None:
        with self._lock:
            self._draining = True
            self._turn_all_away(Verdict.DRAINING)

    def _patience(self) -> float:
        usual, patience = self._call_seconds, self._patience_seconds
        return patience if usual > patience else max(patience, min(PATIENCE_CALLS * usual, MAX_PATIENCE_SECONDS))

    def _turn_all_away(self, verdict: Verdict) -> None:
        while self._waiters:
            self._waiters.popleft().turn_away(verdict)
