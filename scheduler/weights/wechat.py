"""The formula of the WeChat article as it is printed: cores or cards · log(remaining utilisation) · (utilisation / concurrency).

What the article leaves open is read thus (the letters are those of docs/scheduling.md):

- W-a: utilisation counts in percent, `log` is the natural one; a remainder below 1 % counts as 1 % (log 0).
- W-b: nothing used and nothing in flight is 0/0: not known, so the node gets the mean of the others.
- W-c: something used and nothing in flight: the concurrency counts as 1.
- W-d: nothing used, something in flight is 0, as printed; the rotation gives such a node the least share there is, never none.
- W-e: both utilisations are the machine's; `own_utilisation=True` takes the app's own CPU for the second (for comparison).
- W-f: concurrency is that of the node: the jobs of all lanes and apps, by its own report.
- W-g: a node with cards counts by cards (coefficients, mean card utilisation) where the app works on cards, else by cores.
- W-h: no smoothing and no cap, as printed.
- W-i: a node without a report, or with one older than 10 s, is not known: it gets the mean. Offline nodes are removed.
- W-j, W-k, W-l: route weights survive changes, the first in order wins a tie, and one rotation holds all (scheduler/swrr.py).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from rayline.app_spec import SchedulingPolicy
from scheduler.weights.fleet import UNKNOWN, Column, Fleet
from scheduler.weights.policy import Weights, power_of

STALE_SECONDS: Final = 10.0
LEAST_REMAINING_PERCENT: Final = 1.0


class WechatWeights:
    """The article's formula, with its holes closed as little as it takes to compute it at all."""

    name = SchedulingPolicy.WECHAT
    guards_room = False

    def __init__(self, *, own_utilisation: bool = False, logarithm: bool = True) -> None:
        """`own_utilisation` and `logarithm=False` are for comparisons: see W-e, and what the logarithm is good for."""
        self._own_utilisation = own_utilisation
        self._logarithm = logarithm

    def weigh(self, fleet: Fleet, now: float) -> Weights:
        power = power_of(fleet)
        host = fleet.column(Column.HOST_CPU)
        if fleet.counts_cards:
            host = np.where(np.isnan(fleet.column(Column.CARDS)), host, fleet.column(Column.CARDS_BUSY))
        used_percent = 100.0 * host
        remaining_percent = np.maximum(100.0 - used_percent, LEAST_REMAINING_PERCENT)
        if self._own_utilisation:
            used_percent = 100.0 * fleet.column(Column.OWN_CPU) / fleet.column(Column.CORES)
        jobs = fleet.column(Column.JOBS_IN_FLIGHT)
        performance = used_percent / np.maximum(jobs, 1.0)
        performance = np.where((used_percent == 0) & (jobs == 0), UNKNOWN, performance)
        remainder = np.log(remaining_percent) if self._logarithm else remaining_percent
        fresh = now - fleet.column(Column.SAMPLED_AT) <= STALE_SECONDS
        values = np.where(fresh, power * remainder * performance, UNKNOWN)
        return Weights(values, {"cores": power, "remaining": remainder, "performance": performance})
