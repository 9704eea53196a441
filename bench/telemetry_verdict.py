"""What telemetry costs, from rounds in which apps with and without it run side by side: pure, made from plain values."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bench.bars import Bar

COST_PERCENT = 5.0


class Arm(StrEnum):
    """OFF: nothing is counted, shown or traced. ON: metrics, scraped, and traces of a share of the jobs."""

    OFF = "off"
    ON = "on"


@dataclass(frozen=True, slots=True)
class Side:
    """One app's part of a round: CPU time of its lane and its actors; `traced` counts the jobs' spans that it left."""

    cpu_s_per_1000: float
    lost: int
    duplicated: int
    wrong: int
    traced: int


@dataclass(frozen=True, slots=True)
class Round:
    """Both apps over the same seconds, at the same rate."""

    off: Side
    on: Side

    @property
    def cost(self) -> float:
        """The share of throughput that is lost where CPU time is what there is too little of."""
        return 1 - self.off.cpu_s_per_1000 / self.on.cpu_s_per_1000


def judge(rounds: Sequence[Round]) -> dict[str, Any]:
    """The outcome: every round, the median of what telemetry cost in each, and the bars."""
    cost_percent = round(100 * statistics.median(one.cost for one in rounds), 2)
    wrong = sum(side.lost + side.duplicated + side.wrong for one in rounds for side in (one.off, one.on))
    bars = [
        Bar("telemetry: percent of throughput", cost_percent, COST_PERCENT, at_least=False),
        Bar("lost, duplicated or wrong", wrong, 0, at_least=False),
    ]
    return {
        "costs_percent": [round(100 * one.cost, 2) for one in rounds],
        "cost_percent": cost_percent,
        "rounds": [asdict(one) for one in rounds],
        "bars": [bar.to_json() for bar in bars],
    }
