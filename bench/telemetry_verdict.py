"""What telemetry costs, from rounds in which apps with and without it run side by side: pure, made from plain values."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bench.bars import Bar

COST_PERCENT = 5.0
# A round is judged between these shares of its jobs: before, actors warm up; after, one app is alone.
FROM_SHARE = 0.3
TO_SHARE = 0.95
LEAST_SECONDS = 2.0


class Arm(StrEnum):
    """OFF: nothing is counted, shown or traced. ON: metrics, scraped, and traces of a share of the jobs."""

    OFF = "off"
    ON = "on"


@dataclass(frozen=True, slots=True)
class Side:
    """One app's part of a round; `traced` counts the jobs' spans that it left."""

    jobs_per_s: float
    lane_cpu_s_per_1000: float
    lost: int
    duplicated: int
    wrong: int
    traced: int


@dataclass(frozen=True, slots=True)
class Round:
    """Both apps over the same seconds."""

    off: Side
    on: Side

    @property
    def ratio(self) -> float:
        """Throughput with telemetry over that without."""
        return self.on.jobs_per_s / self.off.jobs_per_s


@dataclass(frozen=True, slots=True)
class Mark:
    """So many jobs of each app were done at a time (monotonic seconds)."""

    at: float
    done: Mapping[Arm, int]


class SteadyPart:
    """Owns the two ends of that part of a round that is judged. Life: `take` each mark until it says that it is over."""

    def __init__(self, jobs: int) -> None:
        self._from = FROM_SHARE * jobs
        self._to = TO_SHARE * jobs
        self.begin: Mark | None = None
        self.end: Mark | None = None

    def take(self, mark: Mark) -> bool:
        """Whether this mark begins or ends the part."""
        if self.begin is None:
            if min(mark.done.values()) >= self._from:
                self.begin = mark
                return True
        elif self.end is None and max(mark.done.values()) >= self._to:
            self.end = mark
            return True
        return False

    @property
    def seconds(self) -> float:
        """Its length; 0 where it is not over."""
        return 0.0 if self.begin is None or self.end is None else self.end.at - self.begin.at

    def jobs(self, arm: Arm) -> int:
        """How many were done in it; 0 where it is not over."""
        return 0 if self.begin is None or self.end is None else self.end.done[arm] - self.begin.done[arm]


def judge(rounds: Sequence[Round]) -> dict[str, Any]:
    """The outcome: every round, what telemetry costs by the median of their ratios, and the bars."""

    def median(figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(one) for one in rounds)

    cost_percent = round(100 * (1 - median(lambda one: one.ratio)), 2)
    wrong = sum(side.lost + side.duplicated + side.wrong for one in rounds for side in (one.off, one.on))
    bars = [
        Bar("telemetry: percent of throughput", cost_percent, COST_PERCENT, at_least=False),
        Bar("lost, duplicated or wrong", wrong, 0, at_least=False),
    ]
    by_cpu = median(lambda one: one.on.lane_cpu_s_per_1000 / one.off.lane_cpu_s_per_1000)
    return {
        "ratios": [round(one.ratio, 4) for one in rounds],
        "cost_percent": cost_percent,
        "lane_cpu_percent_more": round(100 * (by_cpu - 1), 2),
        "rounds": [asdict(one) for one in rounds],
        "bars": [bar.to_json() for bar in bars],
    }
