"""What telemetry costs, from rounds with and without it: pure, made from plain values."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bench.bars import Bar

COST_PERCENT = 5.0
# A round is judged between these shares of its jobs: before, actors warm up; after, the last batches are waited for.
FROM_SHARE = 0.3
TO_SHARE = 0.95
LEAST_SECONDS = 2.0


class Arm(StrEnum):
    """OFF: nothing is counted, shown or traced. ON: metrics, scraped, and traces of a share of the jobs."""

    OFF = "off"
    ON = "on"


@dataclass(frozen=True, slots=True)
class Round:
    """One heap of jobs under one arm; `traced` counts the jobs' spans that it left."""

    arm: Arm
    jobs_per_s: float
    cpu_s_per_1000: Mapping[str, float]
    lost: int
    duplicated: int
    wrong: int
    traced: int


@dataclass(frozen=True, slots=True)
class Mark:
    """So many jobs were done at a time (monotonic seconds)."""

    at: float
    done: int


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
            if mark.done >= self._from:
                self.begin = mark
                return True
        elif self.end is None and mark.done >= self._to:
            self.end = mark
            return True
        return False

    @property
    def seconds(self) -> float:
        """Its length; 0 where it is not over."""
        return 0.0 if self.begin is None or self.end is None else self.end.at - self.begin.at

    @property
    def jobs(self) -> int:
        return 0 if self.begin is None or self.end is None else self.end.done - self.begin.done


def order(pairs: int) -> list[Arm]:
    """A B B A A B B A …: whatever grows or shrinks with time meets both alike."""
    return [arm for number in range(pairs) for arm in ((Arm.OFF, Arm.ON) if number % 2 == 0 else (Arm.ON, Arm.OFF))]


def judge(rounds: Sequence[Round]) -> dict[str, Any]:
    """The outcome: both arms, the pairs of neighbours, what it costs, and the bars."""
    by_arm = {arm: [one for one in rounds if one.arm is arm] for arm in Arm}
    arms = {arm.value: _summary(found) for arm, found in by_arm.items()}
    ratios = [
        next(one.jobs_per_s for one in pair if one.arm is Arm.ON) / next(one.jobs_per_s for one in pair if one.arm is Arm.OFF)
        for pair in zip(rounds[::2], rounds[1::2], strict=True)
    ]
    cost_percent = round(100 * (1 - arms["on"]["jobs_per_s"] / arms["off"]["jobs_per_s"]), 2)
    wrong = sum(one.lost + one.duplicated + one.wrong for one in rounds)
    bars = [
        Bar("telemetry: percent of throughput", cost_percent, COST_PERCENT, at_least=False),
        Bar("lost, duplicated or wrong", wrong, 0, at_least=False),
    ]
    return {
        "arms": arms,
        "pairs": [round(ratio, 4) for ratio in ratios],
        "pairs_median": round(statistics.median(ratios), 4),
        "cost_percent": cost_percent,
        "cost_percent_by_cpu": _cpu_cost(arms),
        "rounds": [asdict(one) for one in rounds],
        "bars": [bar.to_json() for bar in bars],
    }


def _summary(rounds: Sequence[Round]) -> dict[str, Any]:
    speeds = [one.jobs_per_s for one in rounds]
    roles = sorted({role for one in rounds for role in one.cpu_s_per_1000})
    return {
        "jobs_per_s": round(statistics.median(speeds), 1),
        "spread": [round(min(speeds), 1), round(max(speeds), 1)],
        "cpu_s_per_1000": {
            role: round(statistics.median(one.cpu_s_per_1000.get(role, 0.0) for one in rounds), 5) for role in roles
        },
        "traced": sum(one.traced for one in rounds),
    }


def _cpu_cost(arms: Mapping[str, Any]) -> float:
    """How much more CPU time a job takes, in percent: steadier than throughput where the machine is not ours alone."""
    on, off = (sum(arms[arm]["cpu_s_per_1000"].values()) for arm in ("on", "off"))
    return round(100 * (on / off - 1), 2) if off else 0.0
