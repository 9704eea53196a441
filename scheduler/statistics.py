"""What a dispatcher counts, in jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.batch import Cause


@dataclass(frozen=True, slots=True)
class DispatchStatistics:
    """A snapshot. `first` counts jobs dispatched for the first time, `again` those dispatched once more, by cause (evicted,
    killed, hung, error), `hedged` those that a second actor was given beside the first, `hedge_wins` those of them that it
    answered first. `refused` counts dispatches that an actor turned away: no load. `short_of_budget` counts how often a batch
    had to wait, or do without its hedge, because the budget was used up."""

    first: int
    again: Mapping[str, int]
    hedged: int
    hedge_wins: int
    refused: int
    short_of_budget: int
    quarantined: int

    @property
    def extra_share(self) -> float:
        """Extra load: dispatches beyond the first one, of all first ones."""
        return (sum(self.again.values()) + self.hedged) / self.first if self.first else 0.0


class Counters:
    """The same, counting. A dispatch that an actor turned away is taken back from where it was counted."""

    __slots__ = ("again", "first", "hedge_wins", "hedged", "quarantined", "refused", "short_of_budget")

    def __init__(self) -> None:
        self.first = 0
        self.again: dict[str, int] = {}
        self.hedged = 0
        self.hedge_wins = 0
        self.refused = 0
        self.short_of_budget = 0
        self.quarantined = 0

    def repeat(self, cause: Cause, jobs: int) -> None:
        """Jobs are dispatched once more."""
        self.again[cause] = self.again.get(cause, 0) + jobs

    def refuse(self, cause: Cause | None, jobs: int, *, hedge: bool) -> None:
        """An actor turned a batch away: a hedge, one dispatched again for a cause, or for the first time (None)."""
        self.refused += jobs
        if hedge:
            self.hedged -= jobs
        elif cause is not None:
            self.again[cause] -= jobs
        else:
            self.first -= jobs

    def snapshot(self) -> DispatchStatistics:
        return DispatchStatistics(
            self.first,
            dict(self.again),
            self.hedged,
            self.hedge_wins,
            self.refused,
            self.short_of_budget,
            self.quarantined,
        )
