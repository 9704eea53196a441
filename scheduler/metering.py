"""Samples of what the scheduler counts and knows: dispatches, nodes, weights.

Each cause and standing is told from the start, as 0: to Prometheus a counter that begins at its first event did not grow by it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from rayline.metrics import Metric, Sample
from rayline.metrics import declared as d
from scheduler.batch import Cause
from scheduler.statistics import DispatchStatistics
from scheduler.view import Standing, View

MAX_WEIGHTS: Final = 100


class DispatchSamples:
    """Owns the highest counts so far: a dispatch that was turned away is taken back, which to a reader of counters would look
    like a process that started anew."""

    def __init__(self) -> None:
        self._highest: dict[tuple[Metric, str], int] = {}

    def read(self, statistics: DispatchStatistics) -> Iterable[Sample]:
        """Of what was sent to actors, and sent again."""
        yield self._growing(d.FIRST, statistics.first)
        for cause in Cause:
            if cause is not Cause.REFUSED:
                yield self._growing(d.RETRIES, statistics.again.get(cause, 0), cause)
        yield self._growing(d.HEDGES, statistics.hedged)
        yield self._growing(d.HEDGE_WINS, statistics.hedge_wins)
        yield Sample(d.REFUSED, statistics.refused)
        yield Sample(d.SHORT, statistics.short_of_budget)
        yield Sample(d.QUARANTINED, statistics.quarantined)

    def _growing(self, metric: Metric, jobs: int, cause: str = "") -> Sample:
        highest = self._highest[metric, cause] = max(jobs, self._highest.get((metric, cause), 0))
        return Sample(metric, highest, {d.CAUSE: str(cause)} if cause else {})


def view_samples(view: View, now: float) -> Iterable[Sample]:
    """Of the nodes that a process knows."""
    nodes = Counter(standing for _, _, standing in view.standings(now))
    for standing in Standing:
        yield Sample(d.NODES, nodes[standing], {d.STANDING: standing.value})
    if view.ears > -math.inf:
        yield Sample(d.VIEW_AGE, max(0.0, now - view.ears))
        yield Sample(d.VIEW_STALE, int(view.stale(now)))


def weight_samples(weights: Mapping[str, float]) -> Iterable[Sample]:
    """Shares of the heaviest nodes."""
    total = sum(weights.values())
    if total:
        for node in heapq.nlargest(MAX_WEIGHTS, weights, key=weights.__getitem__):
            yield Sample(d.WEIGHT, weights[node] / total, {d.NODE: node})
