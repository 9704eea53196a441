"""Bounds how many calls of the feature function run at once in one actor, and how many batches may wait for their turn."""

from __future__ import annotations

import threading
from collections import deque

from rayline.wire import Verdict


class _Waiter:
    __slots__ = ("admitted", "turned_away", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.admitted = False
        self.turned_away: Verdict | None = None


class CallGate:
    """First come, first served. Owns the permits and the queue of waiting batches; does not own what runs inside.

    Life cycle: open until `drain`; from then on every batch that has not entered is answered DRAINING.
    """

    def __init__(self, *, permits: int, max_waiting: int) -> None:
        self._lock = threading.Lock()
        self._free = permits
        self._max_waiting = max_waiting
        self._waiters: deque[_Waiter] = deque()
        self._draining = False

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def enter(self, timeout_seconds: float) -> Verdict | None:
        """None: entered, `leave` must follow. BUSY: too many wait, or no turn came in time. DRAINING: no more calls begin."""
        with self._lock:
            if self._draining:
                return Verdict.DRAINING
            if self._free > 0:
                self._free -= 1
                return None
            if len(self._waiters) >= self._max_waiting:
                return Verdict.BUSY
            waiter = _Waiter()
            self._waiters.append(waiter)
        waiter.woken.wait(timeout_seconds)
        with self._lock:
            if waiter.admitted:
                return None
            if waiter.turned_away is None:
                self._waiters.remove(waiter)
                return Verdict.BUSY
            return waiter.turned_away

    def leave(self) -> None:
        with self._lock:
            if not self._waiters:
                self._free += 1
                return
            waiter = self._waiters.popleft()
            waiter.admitted = True
            waiter.woken.set()

    def drain(self) -> None:
        with self._lock:
            self._draining = True
            for waiter in self._waiters:
                waiter.turned_away = Verdict.DRAINING
                waiter.woken.set()
            self._waiters.clear()
