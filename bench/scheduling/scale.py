"""What scheduling costs with many nodes, and with few: ``python -m bench.scheduling.scale [--nodes N] [--json FILE]``.

Times are CPU time of this process, the best of some rounds, so that other work on the machine counts little.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from scheduler.router import Router, Target
from scheduler.swrr import SmoothWeightedRoundRobin
from scheduler.view import View

_PICKS = 10_000
_ROUNDS = 5
_HEARD = 100
_SLOTS = 8
_INTERVAL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Cost:
    """One fleet.

    `update_ms`: the router computes all weights anew from new samples of all nodes, and brings them into its rotations
    (`Router.wake`, whole); `update_weighed_ms`: the same while an operator gives every other node half of its weight.
    `refresh_ms`: it takes over a second's news, a beat of each node; `refresh_some_ms`: beats of 100 nodes.
    `swrr_us`: one pick of a rotation; `pick_us` and `finished_us`: the router's, with its guard and its record of picks.
    """

    nodes: int
    update_ms: float
    update_weighed_ms: float
    refresh_ms: float
    refresh_some_ms: float
    swrr_us: float
    pick_us: float
    finished_us: float


class Fleet:
    """Reports of many nodes, whose loads change wholly from one to the next."""

    def __init__(self, nodes: int) -> None:
        self._dice = random.Random(nodes)
        self._seq = 0
        self._nodes = [
            (f"n{number:06}", float(4 << (number & 3)), ActorEndpoint("app", "1", "a", "h", 1, _SLOTS, f"n{number}"))
            for number in range(nodes)
        ]

    def beats(self, count: int | None = None) -> list[NodeReport]:
        """A beat of each node, or of so many."""
        self._seq += 1
        return [self._beat(*node) for node in self._nodes[:count]]

    def _beat(self, name: str, cores: float, actor: ActorEndpoint) -> NodeReport:
        dice = self._dice
        load = NodeLoad(cores=cores, host_cpu=dice.random() / 2, own_cpu=0.0, jobs_in_flight=0)
        return NodeReport("c", name, 1, self._seq, NodeState.READY, cores, actors=(actor,), beat=True, load=load)


def measure(nodes: int) -> Cost:
    """Let a router live for some seconds with so many nodes."""
    # As the processes themselves do.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    fleet, view, router = Fleet(nodes), View(), Router(app="app", interval_seconds=_INTERVAL_SECONDS, seed=1)
    view.apply(fleet.beats(), 0.0)
    router.refresh(view, "1", 0.0)
    costs: dict[str, float] = {}

    def note(name: str, act: Callable[[], Any], times: int = 1) -> None:
        began = time.process_time()
        act()
        seconds = (time.process_time() - began) / times
        costs[name] = min(costs.get(name, seconds), seconds)

    for turn in range(_ROUNDS):
        now = 1.0 + turn * _INTERVAL_SECONDS
        view.apply(fleet.beats(), now)
        note("refresh", lambda now=now: router.refresh(view, "1", now))  # type: ignore[misc]
        view.apply(fleet.beats(_HEARD), now + 0.5)
        note("refresh_some", lambda now=now: router.refresh(view, "1", now + 0.5))  # type: ignore[misc]
        update_at = now + _INTERVAL_SECONDS - 0.9
        note("update", lambda at=update_at: router.wake(at))  # type: ignore[misc]
        _note_picks(router, note, update_at, min(_PICKS, nodes))
        router.set_factors(lambda key: 1.0 if key[-1] in "02468" else 0.5)
        note("update_weighed", lambda at=update_at: router.wake(at))  # type: ignore[misc]
        router.set_factors(None)
        router.wake(update_at)
    rotation: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
    rotation.set_weights(list(router.weights()), list(router.weights().values()))
    for _ in range(nodes):  # from the level start to the steady state
        rotation.pick()
    for _ in range(_ROUNDS):
        note("swrr", lambda: [rotation.pick() for _ in range(_PICKS)], _PICKS)
    return Cost(
        nodes=nodes,
        update_ms=round(costs["update"] * 1e3, 1),
        update_weighed_ms=round(costs["update_weighed"] * 1e3, 1),
        refresh_ms=round(costs["refresh"] * 1e3, 1),
        refresh_some_ms=round(costs["refresh_some"] * 1e3, 2),
        swrr_us=round(costs["swrr"] * 1e6, 2),
        pick_us=round(costs["pick"] * 1e6, 2),
        finished_us=round(costs["finished"] * 1e6, 2),
    )


def _note_picks(router: Router, note: Callable[[str, Callable[[], Any], int], None], now: float, together: int) -> None:
    """So many batches in flight together, and again until there were `_PICKS` of them."""
    targets: list[Target] = []

    def pick() -> None:
        targets.extend([target for _ in range(together) if (target := router.pick(now, batch="b")) is not None])

    def finish() -> None:
        for target in targets:
            router.finished(target, now, seconds=0.1, usual_seconds=0.1)

    for _ in range(_PICKS // together):
        note("pick", pick, together)
        note("finished", finish, together)
        targets.clear()


def main(
    nodes: Annotated[list[int] | None, typer.Option("--nodes", help="Sizes of fleets.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as well.")] = None,
) -> None:
    """Print what an update of all weights, news of nodes, and a pick cost."""
    rows = []
    typer.echo(
        f"{'nodes':>8} {'update ms':>10} {'weighed ms':>11} {'refresh ms':>11} {'of 100 ms':>10} {'swrr us':>8} {'pick us':>8} "
        f"{'finished us':>12}"
    )
    for count in nodes or (4, 60, 1_000, 10_000, 100_000):
        rows.append(row := measure(count))
        typer.echo(
            f"{row.nodes:>8,} {row.update_ms:>10.1f} {row.update_weighed_ms:>11.1f} {row.refresh_ms:>11.1f} "
            f"{row.refresh_some_ms:>10.2f} {row.swrr_us:>8.2f} {row.pick_us:>8.2f} {row.finished_us:>12.2f}"
        )
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
