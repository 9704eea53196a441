"""Which version of an app's models the call gets that begins now. Pure but for a lock: no file, no clock, no user code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.loading import LoadedApp


@dataclass(frozen=True, slots=True)
class Served:
    """An app loaded with one generation of its models; `label` is what results say of it."""

    app: LoadedApp
    generation: int = 0
    label: str | None = None


class AppVersions:
    """Owns the app as it serves, and its prepared successor. Does not own the loading of either.

    `turn[0]` is the generation in force on the node, shared by all its actors: as soon as one call took a generation, no call on
    that node takes an older one. A call belongs to the generation that it took, however long it runs.

    Life cycle: `take` before each call, from any number of threads; `prepare` whenever a successor is loaded.
    """

    def __init__(
        self, *, served: Served, turn: Sequence[int] = (0,), advance: Callable[[int], object] = lambda _generation: None
    ) -> None:
        """`advance` moves the turn on, never back; it is called by the first call of an app that is newer than the turn."""
        self.turn = turn
        self._served = served
        self._successor: Served | None = None
        self._advance = advance
        self._lock = threading.Lock()

    @property
    def served(self) -> Served:
        return self._served

    @property
    def newest(self) -> Served:
        """The newest that calls could take here."""
        successor = self._successor
        return self._served if successor is None else successor

    @property
    def prepared(self) -> int:
        """The generation of the newest."""
        return self.newest.generation

    def prepare(self, successor: Served) -> None:
        """Once the node's turn is there, calls take this one. Another one that waits is dropped, unless its turn has come."""
        with self._lock:
            if self._successor is not None and self._successor.generation == self.turn[0]:
                self._served = self._successor
            self._successor = successor

    def take(self) -> Served | None:
        """What a call that begins now runs on; None: the node went on to a generation that is not here."""
        served = self._served
        if self.turn[0] == served.generation:
            return served
        with self._lock:
            turn = self.turn[0]
            if self._successor is not None and self._successor.generation == turn:
                self._served, self._successor = self._successor, None
            elif turn < self._served.generation:
                self._advance(self._served.generation)
            return self._served if self._served.generation == self.turn[0] else None
