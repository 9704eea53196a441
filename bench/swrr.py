"""What a pick costs: ``python -m bench.swrr [--json FILE]``.

Microseconds a pick for 1,000 to 100,000 nodes, with few distinct weights (pods come in a few sizes) and with all distinct
(dynamic weights), with every tenth node blocked and brought back in between, and what a new weight for every node costs.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from scheduler.swrr import SmoothWeightedRoundRobin

NODE_COUNTS = (1_000, 10_000, 100_000)
_PICKS = 50_000


@dataclass(frozen=True, slots=True)
class PickCost:
    """One line of the table; all times are wall clock on an otherwise unknown machine: compare within one run."""

    nodes: int
    distinct_weights: int
    pick_us: float
    pick_with_churn_us: float  # each tenth pick blocks its node and brings the previous one back
    matches_per_pick: float
    reweight_us_per_node: float  # a new weight for every node, repairs at the next pick included


def few_weights(_node: int) -> float:
    """Pods of a handful of sizes."""
    return random.choice((1.0, 2.0, 4.0, 8.0, 16.0))


def distinct_weights(_node: int) -> float:
    """Weights that follow load: no two alike."""
    return random.uniform(0.5, 64.0)


def measure(nodes: int, weight_of: Callable[[int], float]) -> PickCost:
    """Build a rotation, let it run in, and time it."""
    random.seed(nodes)
    swrr: SmoothWeightedRoundRobin[int] = SmoothWeightedRoundRobin()
    for node in range(nodes):
        swrr.set_weight(node, weight_of(node))
    for _ in range(nodes):  # from the level start to the steady state
        swrr.pick()
    before = swrr.statistics()
    started = time.perf_counter()
    for _ in range(_PICKS):
        swrr.pick()
    pick_seconds = time.perf_counter() - started
    after = swrr.statistics()

    out: int | None = None
    started = time.perf_counter()
    for turn in range(_PICKS):
        picked = swrr.pick()
        if turn % 10 == 0 and picked is not None:
            if out is not None:
                swrr.unblock(out)
            swrr.block(picked)
            out = picked
    churn_seconds = time.perf_counter() - started

    weights = [weight_of(node) for node in range(nodes)]
    started = time.perf_counter()
    for node, weight in enumerate(weights):
        swrr.set_weight(node, weight)
    swrr.pick()
    reweight_seconds = time.perf_counter() - started
    return PickCost(
        nodes=nodes,
        distinct_weights=before.distinct_weights,
        pick_us=round(pick_seconds / _PICKS * 1e6, 2),
        pick_with_churn_us=round(churn_seconds / _PICKS * 1e6, 2),
        matches_per_pick=round((after.matches - before.matches) / _PICKS, 1),
        reweight_us_per_node=round(reweight_seconds / nodes * 1e6, 2),
    )


def main(json_file: Annotated[Path | None, typer.Option("--json", help="write the figures here as well")] = None) -> None:
    """Print the cost of a pick by number of nodes and of distinct weights."""
    rows = [measure(nodes, weight_of) for weight_of in (few_weights, distinct_weights) for nodes in NODE_COUNTS]
    typer.echo(f"{'nodes':>8} {'weights':>8} {'pick us':>8} {'churn us':>9} {'matches':>8} {'reweight us/node':>17}")
    for row in rows:
        typer.echo(
            f"{row.nodes:>8,} {row.distinct_weights:>8,} {row.pick_us:>8.2f} {row.pick_with_churn_us:>9.2f} "
            f"{row.matches_per_pick:>8.1f} {row.reweight_us_per_node:>17.2f}"
        )
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
