"""What is simulated: the fleet, its neighbours, the jobs and the failures, as plain values."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from workers.gate import PATIENCE_SECONDS

NEIGHBOUR_LIGHT: Final = (0.0, 0.2)
NEIGHBOUR_HEAVY: Final = (0.3, 0.9)
HEAVY_SHARE: Final = 0.5
MEAN_NEIGHBOUR: Final = (1 - HEAVY_SHARE) * sum(NEIGHBOUR_LIGHT) / 2 + HEAVY_SHARE * sum(NEIGHBOUR_HEAVY) / 2


class Costs(StrEnum):
    """Core seconds of one batch, 1 on average: exponential, all alike, or few that cost 100 times as much as the others."""

    EXPONENTIAL = "exponential"
    EQUAL = "equal"
    MIXED = "mixed"


class News(StrEnum):
    """How lanes hear of a notice: told at once, and its actors hand back and refuse; as in the article, with the node's next beat
    and each lane's pull every 3 s, until when it works on; or not at all, so that its end is the first that is seen."""

    AT_ONCE = "at once"
    ARTICLE = "by beat and pull"
    NONE = "never"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run is this and a seed.

    `load` is the work that arrives over the cores that neighbours leave on average, unless `jobs_a_second` says how much comes
    whatever the fleet. Neighbours, where there are any, take cores first; each node's change their mind every
    `neighbour_seconds` on average. Beats reach the lanes `delay_seconds` (from, to) after they were
    sent. `notices` and `deaths` are evictions for each node and hour, with 5 s of grace and without; a replacement takes
    `replacement_seconds`. An actor answers BUSY to a batch that has waited for it for `patience_seconds`. Without `retry`, a job
    whose attempt was lost or handed back fails.
    """

    nodes: int = 60
    load: float = 0.8
    jobs_a_second: float | None = None
    lanes: int = 1
    costs: Costs = Costs.EXPONENTIAL
    cores: tuple[int, int] = (4, 32)
    seconds: float = 60.0
    warm_up_seconds: float = 15.0
    neighbours: bool = True
    neighbour_seconds: float = 20.0
    delay_seconds: tuple[float, float] = (0.02, 0.15)
    notices: float = 0.0
    deaths: float = 0.0
    news: News = News.AT_ONCE
    retry: bool = True
    replacement_seconds: float = 15.0
    deadline_seconds: float = 10.0
    patience_seconds: float = PATIENCE_SECONDS
    # So many nodes are slowed to `slow_to` from a third to two thirds of the run.
    slow_nodes: int = 0
    slow_to: float = 0.3


class Chances:
    """Everything that happens by chance, each kind from a stream of its own: policies are compared on the same world."""

    def __init__(self, seed: int) -> None:
        self.fleet = random.Random(f"fleet {seed}")
        self.neighbours = random.Random(f"neighbours {seed}")
        self.arrivals = random.Random(f"arrivals {seed}")
        self.failures = random.Random(f"failures {seed}")
        self.beats = random.Random(f"beats {seed}")
        self.policy = random.Random(f"policy {seed}")

    def neighbour(self) -> float:
        """The share of a node's cores that its neighbours take for a while."""
        heavy = self.neighbours.random() < HEAVY_SHARE
        return self.neighbours.uniform(*(NEIGHBOUR_HEAVY if heavy else NEIGHBOUR_LIGHT))

    def cost(self, costs: Costs) -> float:
        match costs:
            case Costs.EXPONENTIAL:
                return self.arrivals.expovariate(1.0)
            case Costs.EQUAL:
                return 1.0
            case Costs.MIXED:
                return 10.0 if self.arrivals.random() < 1 / 11 else 0.1
