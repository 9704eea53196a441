"""What the same service costs on machines that stay and on machines that may be taken away: the smallest fleet of each that
attains the SLA, by the product's own router under virtual time, and its price.

Everything that decides the outcome is an assumption and stands in `offers`: no provider's prices or traces are used.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from bench.scheduling.engine import Simulation
from bench.scheduling.policies import PRODUCT
from bench.scheduling.scenario import MEAN_NEIGHBOUR, Scenario

ATTAINED: Final = 0.999
SEEDS: Final = 5
MOST_TIMES: Final = 16
# Of a core-hour, assumed: that of a machine which stays is the unit.
ON_DEMAND_PRICE: Final = 1.0
PREEMPTIBLE_PRICE: Final = 0.3
# 50 jobs a second of one core second each keep 50 cores busy.
USUAL: Final = Scenario(
    nodes=1,
    jobs_a_second=50.0,
    cores=(4, 4),
    seconds=600.0,
    neighbours=False,
    # From the loss of a pod to the first job of its successor; 41 s were measured (docs/chaos.md).
    replacement_seconds=45.0,
)
_NOTICED: Final = 0.75


@dataclass(frozen=True, slots=True)
class Offer:
    """Machines that one can rent: a core-hour's price, and what happens on them (`scenario`, whatever its number of nodes)."""

    name: str
    price: float
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class CostRow:
    """The smallest fleet of an offer that attains the SLA. `attained`: share of all jobs within the deadline, all seeds together;
    `cost`: of an hour, all nodes paid for all the time; `ratio`: over that of the first offer; `sent_again`: dispatches beyond
    the first, as a share of jobs."""

    offer: str
    price: float
    nodes: int
    cores: int
    attained: float
    sent_again: float
    cost: float
    ratio: float


def offers(on_demand: float = ON_DEMAND_PRICE, preemptible: float = PREEMPTIBLE_PRICE) -> list[Offer]:
    """What is compared, at these prices of a core-hour; the first one is the measure."""
    return [
        Offer("on demand", on_demand, USUAL),
        Offer("preemptible, each taken every hour", preemptible, _evicted(1.0)),
        Offer("preemptible, each taken every 10 minutes", preemptible, _evicted(6.0)),
        Offer("idle cores beside neighbours, taken every hour", preemptible, replace(_evicted(1.0), neighbours=True)),
    ]


def costs(
    compared: Sequence[Offer], progress: Callable[[str], None] = lambda _: None, *, processes: int = 1, seeds: int = SEEDS
) -> list[CostRow]:
    """One row for each offer, in their order; the outcome does not depend on the number of processes."""
    tasks = [(offer.scenario, seeds) for offer in compared]
    rows: list[CostRow] = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for offer, (nodes, attained, again) in zip(compared, pool.imap(smallest_fleet, tasks, chunksize=1), strict=True):
            cores = nodes * offer.scenario.cores[0]
            cost = cores * offer.price
            ratio = cost / rows[0].cost if rows else 1.0
            row = CostRow(offer.name, offer.price, nodes, cores, round(attained, 6), round(again, 5), cost, round(ratio, 4))
            progress(f"{offer.name}: {nodes} nodes, {attained:.3%} in time")
            rows.append(row)
    return rows


def smallest_fleet(task: tuple[Scenario, int]) -> tuple[int, float, float]:
    """The fewest nodes with which a scenario attains the SLA (one fewer does not), what they attain, and what was sent again.

    Raises:
        ValueError: even many times the cores that the work needs do not attain it.
    """
    scenario, seeds = task
    tried: dict[int, tuple[float, float]] = {}

    def attains(nodes: int) -> bool:
        tried[nodes] = _attained(replace(scenario, nodes=nodes), seeds)
        return tried[nodes][0] >= ATTAINED

    # With no more cores than the work needs the backlog grows for ever, though a short run may not show it.
    too_few = math.floor((scenario.jobs_a_second or 0.0) / _cores_kept(scenario))
    enough = least = too_few + 1
    while not attains(enough):
        too_few, enough = enough, math.ceil(enough * 1.25)
        if enough > MOST_TIMES * least:
            raise ValueError(
                f"{too_few} nodes attain {tried[too_few][0]:.3%} within {scenario.deadline_seconds:g} s, not {ATTAINED:.1%}"
            )
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if attains(middle):
            enough = middle
        else:
            too_few = middle
    return enough, *tried[enough]


def as_document(rows: Sequence[CostRow], compared: Sequence[Offer]) -> dict[str, Any]:
    """Everything for machines, the assumptions included."""
    return {
        "attained": ATTAINED,
        "deadline_seconds": USUAL.deadline_seconds,
        "rows": [asdict(row) for row in rows],
        "assumptions": [asdict(offer) for offer in compared],
    }


def _evicted(an_hour: float) -> Scenario:
    return replace(USUAL, notices=_NOTICED * an_hour, deaths=(1 - _NOTICED) * an_hour)


def _cores_kept(scenario: Scenario) -> float:
    """Of one node, on average: what neighbours leave, while it is there."""
    lives_seconds = 3_600 / (scenario.notices + scenario.deaths) if scenario.notices + scenario.deaths else math.inf
    there = 1.0 / (1.0 + scenario.replacement_seconds / lives_seconds)
    return scenario.cores[0] * there * (1.0 - MEAN_NEIGHBOUR if scenario.neighbours else 1.0)


def _attained(scenario: Scenario, seeds: int) -> tuple[float, float]:
    runs = [Simulation(scenario, seed, PRODUCT["headroom"]).run() for seed in range(seeds)]
    arrived = sum(run.arrived for run in runs)
    return 1.0 - sum(run.late + run.unfinished for run in runs) / arrived, sum(run.again for run in runs) / arrived
