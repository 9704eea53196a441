"""Which scenarios are compared, and the figures of each: medians over seeds."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from bench.scheduling.engine import Run, Simulation
from bench.scheduling.policies import ABLATIONS, ALL, EVERYDAY, FORMULA, OWN_FORMULA, PERFECT, SHORTLIST
from bench.scheduling.scenario import Costs, News, Scenario

PERFECT_BAR: Final = 1.2
FORMULA_BAR: Final = 2.0
BAR_LOADS: Final = (0.6, 0.8)
_HOUR_EVERY_4_MINUTES: Final = 15.0


@dataclass(frozen=True, slots=True)
class Question:
    """One table: a scenario, and who is compared in it."""

    name: str
    scenario: Scenario
    policies: Sequence[str]
    seeds: int = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One policy in one scenario: medians over seeds. Latencies in seconds; shares of the jobs that arrived, 0 to 1, but for what
    was sent again or refused, which can happen to one job several times."""

    question: str
    policy: str
    nodes: int
    load: float
    lanes: int
    seeds: int
    jobs: int
    p50_s: float
    p99_s: float
    utilisation_deviation: float
    deadline_missed: float
    failed: float
    sent_again: float
    refused: float


@dataclass(frozen=True, slots=True)
class Bar:
    """What the default must reach."""

    name: str
    load: float
    figure: float
    limit: float
    met: bool


def questions(*, quick: bool = False, large: bool = False) -> Iterator[Question]:
    """All tables; `quick` the bars alone, shorter and once; `large` adds fleets of 10,000 and 100,000 nodes."""
    usual = Scenario()
    if quick:
        for load in BAR_LOADS:
            yield Question(
                "load", replace(usual, load=load, seconds=25.0, warm_up_seconds=8.0), ("headroom", PERFECT, FORMULA), 1
            )
        return
    for load in BAR_LOADS:
        yield Question("load", replace(usual, load=load), EVERYDAY)
    for load in (0.5, 0.95):
        yield Question("load", replace(usual, load=load), SHORTLIST)
    for lanes in (4, 8, 16):
        yield Question("several lanes", replace(usual, lanes=lanes), SHORTLIST, 3)
    for load in (0.6, 0.95):
        yield Question("several lanes", replace(usual, load=load, lanes=16), ("headroom", PERFECT), 3)
    late = replace(usual, delay_seconds=(1.0, 3.0))
    yield Question("views 1 to 3 s late", late, SHORTLIST, 3)
    yield Question("views 1 to 3 s late", replace(late, lanes=8), ("headroom", "static", PERFECT), 3)
    for costs in (Costs.EQUAL, Costs.MIXED):
        yield Question(f"{costs} costs", replace(usual, costs=costs), SHORTLIST, 3)
    yield Question("mixed costs on 1-4 cores", replace(usual, costs=Costs.MIXED, cores=(1, 4), load=0.6), SHORTLIST, 3)
    evicted = replace(usual, load=0.6, notices=_HOUR_EVERY_4_MINUTES, deaths=_HOUR_EVERY_4_MINUTES)
    yield Question("each pod evicted every 2 minutes", evicted, SHORTLIST, 3)
    for news in News:
        for retry in (True, False):
            name = f"each pod evicted every 2 minutes, notices heard {news}, {'with' if retry else 'without'} retries"
            yield Question(name, replace(evicted, news=news, retry=retry), ("headroom",), 3)
    low = replace(usual, load=0.3, cores=(1, 4))
    yield Question("half a request a second and node, 1-4 cores", low, EVERYDAY, 3)
    yield Question("6 nodes at 30 %, unreported", replace(usual, slow_nodes=6), SHORTLIST, 3)
    for load in (*BAR_LOADS, 0.95):
        yield Question("logarithm", replace(usual, load=load), (FORMULA, OWN_FORMULA, *ABLATIONS), 3)
    many = ("headroom", "static", FORMULA)
    yield Question("1,000 nodes", replace(usual, nodes=1_000, lanes=4, seconds=10.0, warm_up_seconds=5.0), many, 1)
    if large:
        # Smaller nodes, so that their actors fit into the memory of one process.
        ten_thousand = replace(usual, nodes=10_000, cores=(2, 8), seconds=8.0, warm_up_seconds=4.0)
        yield Question("10,000 nodes of 2-8 cores", ten_thousand, many, 1)
        yield Question("100,000 nodes of 1-4 cores", replace(ten_thousand, nodes=100_000, cores=(1, 4), seconds=5.0), many, 1)


def answers(asked: Sequence[Question], progress: Callable[[str], None] = lambda _: None, *, processes: int = 1) -> Iterator[Row]:
    """Simulate all policies of all questions, in their order; the outcome does not depend on the number of processes."""
    tasks = [(question, policy) for question in asked for policy in question.policies]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for (question, policy), row in zip(tasks, pool.imap(answer, tasks, chunksize=1), strict=True):
            progress(f"{question.name}, load {question.scenario.load:g}: {policy}: p99 {row.p99_s:.2f} s")
            yield row


def answer(task: tuple[Question, str]) -> Row:
    """Simulate one policy of a question."""
    question, policy = task
    return _row(question, policy, [Simulation(question.scenario, seed, ALL[policy]).run() for seed in range(question.seeds)])


def bars(rows: Sequence[Row]) -> list[Bar]:
    """The default against perfect knowledge and against the article's formula, where both were simulated."""
    found = []
    p99 = {(row.policy, row.load): row.p99_s for row in rows if row.question == "load"}
    for load in BAR_LOADS:
        default = p99.get(("headroom", load))
        if default is None:
            continue
        perfect, formula = default / p99[PERFECT, load], p99[FORMULA, load] / default
        found.append(Bar("p99 over that of perfect knowledge", load, round(perfect, 3), PERFECT_BAR, perfect <= PERFECT_BAR))
        found.append(Bar("p99 of the article's formula over it", load, round(formula, 2), FORMULA_BAR, formula >= FORMULA_BAR))
    return found


def as_document(rows: Sequence[Row], asked: Sequence[Question]) -> dict[str, Any]:
    """Everything for machines."""
    return {
        "default": "headroom",
        "bars": [asdict(bar) for bar in bars(rows)],
        "rows": [asdict(row) for row in rows],
        "scenarios": [{"question": question.name, **asdict(question.scenario)} for question in asked],
    }


def _row(question: Question, policy: str, runs: Sequence[Run]) -> Row:
    def median(figure: Callable[[Run], float]) -> float:
        return statistics.median(figure(run) for run in runs)

    return Row(
        question=question.name,
        policy=policy,
        nodes=question.scenario.nodes,
        load=question.scenario.load,
        lanes=question.scenario.lanes,
        seeds=question.seeds,
        jobs=sum(run.arrived for run in runs),
        p50_s=round(median(lambda run: run.quantile(0.5)), 3),
        p99_s=round(median(lambda run: run.quantile(0.99)), 3),
        utilisation_deviation=round(median(lambda run: statistics.mean(run.deviations or [0.0])), 3),
        deadline_missed=round(median(lambda run: (run.late + run.unfinished) / max(1, run.arrived)), 5),
        failed=round(median(lambda run: run.failed / max(1, run.arrived)), 5),
        sent_again=round(median(lambda run: run.again / max(1, run.arrived)), 5),
        refused=round(median(lambda run: run.refused / max(1, run.arrived)), 5),
    )
