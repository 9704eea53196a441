"""What weights cost with many nodes: ``python -m bench.scheduling.scale [--nodes N] [--json FILE]``.

Times are CPU time of this process, so that other work on the machine counts little.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from scheduler.router import Router, Target
from scheduler.swrr import SmoothWeightedRoundRobin
from scheduler.view import View
from scheduler.weights import Weigher, policy_of

_PICKS = 30_000
_UPDATES = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """One fleet. `weigh_ms`: the policy alone; `update_ms`: all weights anew and into the rotation; `pick_us`: one pick by SWRR;
    `router_pick_us` and `router_finished_us`: with the guard of actors and the record for `explain`."""

    nodes: int
    weigh_ms: float
    update_ms: float
    pick_us: float
    router_pick_us: float
    router_finished_us: float


def measure(nodes: int) -> Cost:
    """Build a fleet with samples, let weights change wholly between updates, and time it."""
    dice = random.Random(nodes)
    weigher = Weigher(policy=policy_of("headroom"), seed=1)
    rotation: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
    names = [f"c/n{number:06}" for number in range(nodes)]
    weigh, update = [], []
    for turn in range(_UPDATES + 1):
        now = 20.0 + 3.0 * turn
        for name in names:
            if not turn:
                weigher.fleet.join(name, 0.0)
            weigher.fleet.observe(name, _report(name, dice, turn), now)
        weigh.append(_timed(lambda now=now: weigher.policy.weigh(weigher.fleet, now)))  # type: ignore[misc]
        update.append(_timed(lambda now=now: rotation.set_weights(*weigher.update(now))))  # type: ignore[misc]
        for _ in range(nodes):
            rotation.pick()
    pick = _timed(lambda: [rotation.pick() for _ in range(_PICKS)])
    router = _router(nodes, dice)
    targets: list[Target] = []
    router_pick = _timed(lambda: targets.extend(t for _ in range(_PICKS) if (t := router.pick(1.0)) is not None))

    def end_all() -> None:
        for target in targets:
            router.finished(target, 1.1, seconds=0.1)

    router_end = _timed(end_all)
    return Cost(
        nodes=nodes,
        weigh_ms=round(median(weigh[1:]) * 1e3, 1),
        update_ms=round(median(update[1:]) * 1e3, 1),
        pick_us=round(pick / _PICKS * 1e6, 2),
        router_pick_us=round(router_pick / _PICKS * 1e6, 2),
        router_finished_us=round(router_end / max(1, len(targets)) * 1e6, 2),
    )


def _report(name: str, dice: random.Random, turn: int) -> NodeReport:
    cores = float(4 << (int(name[-3:]) & 3))
    load = NodeLoad(cores=cores, host_cpu=dice.random(), own_cpu=dice.random() * cores / 4, jobs_in_flight=dice.randrange(8))
    return NodeReport("c", name.partition("/")[2], 1, turn, NodeState.READY, cores, beat=True, load=load)


def _router(nodes: int, dice: random.Random) -> Router:
    view, router = View(), Router(app="app", seed=1)
    seats = max(4, -(-2 * _PICKS // nodes))
    reports = []
    for number in range(nodes):
        actors = tuple(ActorEndpoint("app", "1", f"a{seat}", "h", 1, 2, f"{number}.{seat}") for seat in range(seats))
        load = NodeLoad(cores=float(seats), host_cpu=dice.random() / 2, own_cpu=0.0, jobs_in_flight=0)
        reports.append(NodeReport("c", f"n{number:06}", 1, 1, NodeState.READY, float(seats), actors=actors, beat=True, load=load))
    view.apply(reports, 0.0)
    router.refresh(view, "1", 0.0)
    return router


def _timed(act: Callable[[], Any]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def main(
    nodes: Annotated[list[int] | None, typer.Option("--nodes", help="Sizes of fleets.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as well.")] = None,
) -> None:
    """Print what an update of all weights and a pick cost."""
    rows = [measure(count) for count in nodes or (60, 1_000, 10_000, 100_000)]
    typer.echo(f"{'nodes':>8} {'weigh ms':>9} {'update ms':>10} {'pick us':>8} {'router pick us':>15} {'finished us':>12}")
    for row in rows:
        typer.echo(
            f"{row.nodes:>8,} {row.weigh_ms:>9.1f} {row.update_ms:>10.1f} {row.pick_us:>8.2f} {row.router_pick_us:>15.2f} "
            f"{row.router_finished_us:>12.2f}"
        )
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
