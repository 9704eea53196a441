"""When a batch runs so long that a second one should run beside it, and where that one may run. Pure; time comes in.

Dean and Barroso, "The Tail at Scale": a hedge is sent once a request is late against what is measured, to a place that does not
share the first one's trouble. Batches are measured by size class (powers of two): a full batch is no late small one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

from scheduler.view import NodeView

# A batch is late when it runs longer than so many times its app's 99th percentile.
LATE_FACTOR: Final = 2.0
# Below this, a busy machine's own hiccups would be hedged.
LATE_FLOOR_SECONDS: Final = 0.25
MIN_SAMPLES: Final = 30
# Before so many were measured, a batch is late after this share of the time that its jobs have left.
UNMEASURED_SHARE: Final = 0.5
WINDOW_SAMPLES: Final = 512
_RESORT_AFTER: Final = 32
# What turned out too short is not tried again soon: after a batch without an answer in time, so much more than it had is asked
# for; each one that ends takes that back by a share.
TOO_SHORT_FACTOR: Final = 1.5
TOO_SHORT_FADES: Final = 0.9


@dataclass(slots=True)
class _Window:
    """The last batches of one size class, in seconds; quantiles are sorted out anew every few samples."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_SAMPLES))
    unsorted: int = 0
    p50: float = 0.0
    p99: float = 0.0

    def add(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.unsorted += 1
        if self.unsorted >= _RESORT_AFTER or len(self.seconds) <= MIN_SAMPLES:
            self.unsorted = 0
            ordered = sorted(self.seconds)
            self.p50 = ordered[len(ordered) // 2]
            self.p99 = ordered[min(len(ordered) - 1, (len(ordered) * 99) // 100)]


class ServiceTimes:
    """Owns how long this app's batches took from dispatch to their last answer. Does not own what follows from it."""

    def __init__(self) -> None:
        self._windows: dict[int, _Window] = {}
        self._late_factor = LATE_FACTOR
        self._late_floor_seconds = LATE_FLOOR_SECONDS
        self._too_short_seconds = 0.0

    def tune(self, *, late_factor: float | None = None, late_floor_seconds: float | None = None) -> None:
        """From how many times the 99th percentile on a batch is late, and never before so many seconds."""
        if late_factor is not None:
            self._late_factor = late_factor
        if late_floor_seconds is not None:
            self._late_floor_seconds = late_floor_seconds

    def observe(self, jobs: int, seconds: float) -> None:
        """A batch of so many jobs ran to its end."""
        size_class = jobs.bit_length()
        window = self._windows.get(size_class)
        if window is None:
            window = self._windows[size_class] = _Window()
        window.add(seconds)
        self._too_short_seconds *= TOO_SHORT_FADES

    def too_short(self, seconds: float, *, most_seconds: float) -> None:
        """A batch had so many seconds, and no answer in them; not more than `most_seconds` is asked for because of that."""
        self._too_short_seconds = min(most_seconds, max(self._too_short_seconds, TOO_SHORT_FACTOR * seconds))

    def needed_seconds(self, jobs: int) -> float:
        """The time that a batch of so many jobs must have left to be worth its actor's time; 0 where nothing is known.

        Work that ends too late is work that others in the queue miss: after an overload it would go on for ever.
        """
        return max(self.expected_seconds(jobs), self._too_short_seconds)

    def expected_seconds(self, jobs: int) -> float:
        """How long a batch of so many jobs takes at best guess, rather too short than too long; 0 where nothing is known.

        Smaller than anything measured: the smallest measured, in proportion, as if its jobs ran one after another.
        """
        size_class = jobs.bit_length()
        own = self._windows.get(size_class)
        if own is not None:
            return own.p50
        smaller = max((known for known in self._windows if known < size_class), default=None)
        if smaller is not None:
            return self._windows[smaller].p50
        larger = min(self._windows, default=None)
        return 0.0 if larger is None else self._windows[larger].p50 / 2 ** (larger - size_class)

    def late_after_seconds(self, jobs: int, *, left_seconds: float = inf) -> float:
        """When a batch of so many jobs is late, whose last deadline is `left_seconds` away."""
        size_class = jobs.bit_length()
        for known in sorted(self._windows):
            window = self._windows[known]
            if known >= size_class and len(window.seconds) >= MIN_SAMPLES:
                return max(self._late_floor_seconds, self._late_factor * window.p99)
        return UNMEASURED_SHARE * left_seconds


def other_domains(nodes: Iterable[NodeView], key: str) -> Iterator[frozenset[str]]:
    """Which nodes (`cluster/node`) a hedge of a batch on `key` avoids, the farthest failure domain first: those of its cluster,
    then those of its zone, then itself alone."""
    known = list(nodes)
    cluster = key.partition("/")[0]
    zone = next((node.report.zone for node in known if node.key == key), None)
    yield frozenset(node.key for node in known if node.report.cluster == cluster) | {key}
    if zone is not None:
        yield frozenset(node.key for node in known if node.report.zone == zone) | {key}
    yield frozenset({key})
