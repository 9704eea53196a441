"""Schedules: one plan and one seed give the same strokes, always. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from deploy.chaos.plan import FaultSpec, Pick, Plan, RandomFault, RandomPlan

Candidate = TypeVar("Candidate")


@dataclass(frozen=True, slots=True)
class Fault:
    """One stroke, not before `at_seconds` of the load. `draw` in [0, 1) chooses among the candidates; the two strokes of one
    fault share it, so that they hit one target."""

    at_seconds: float
    draw: float
    spec: FaultSpec


def draw_schedule(plan: Plan, seed: int) -> list[Fault]:
    """The plan's strokes in the order of time."""
    dice = random.Random(f"{plan.name}/{seed}")
    strokes = [stroke for spec in plan.faults for stroke in _strokes(spec, dice)]
    if plan.random is not None:
        strokes += _accidents(plan.random, dice)
    return sorted(strokes, key=lambda stroke: stroke.at_seconds)


def choose(candidates: Sequence[Candidate], fault: Fault) -> list[Candidate]:
    """Whom a stroke hits of the candidates (oldest first): one, or a share of them; none where there are none."""
    if not candidates:
        return []
    if fault.spec.share is not None:
        count = max(1, round(fault.spec.share * len(candidates)))
        return random.Random(fault.draw).sample(list(candidates), count)
    if fault.spec.pick is Pick.OLDEST:
        return [candidates[0]]
    if fault.spec.pick is Pick.NEWEST:
        return [candidates[-1]]
    return [candidates[int(fault.draw * len(candidates))]]


def spread(fault: Fault, count: int) -> list[float]:
    """How many seconds after the first moment each of `count` targets is struck."""
    dice = random.Random(fault.draw)
    return sorted(dice.uniform(0, fault.spec.within) for _ in range(count))


def _strokes(spec: FaultSpec, dice: random.Random) -> list[Fault]:
    if spec.between is not None:
        moments = [dice.uniform(*spec.between)]
    else:
        moments = [spec.start + number * (spec.every or 0.0) + dice.uniform(0, spec.jitter) for number in range(spec.count)]
    strokes = []
    for moment in moments:
        draw = dice.random()
        strokes.append(Fault(moment, draw, spec))
        if spec.again_within is not None:
            strokes.append(Fault(moment + dice.uniform(*spec.again_within), draw, spec))
    return strokes


def _accidents(plan: RandomPlan, dice: random.Random) -> list[Fault]:
    strokes = []
    moment = plan.start
    while (moment := moment + dice.expovariate(1 / plan.mean_seconds)) < plan.until:
        drawn = dice.choices(plan.faults, weights=[fault.weight for fault in plan.faults])[0]
        strokes.append(Fault(moment, dice.random(), _spec(drawn, moment, dice)))
    return strokes


def _spec(drawn: RandomFault, moment: float, dice: random.Random) -> FaultSpec:
    return FaultSpec(
        kind=drawn.kind,
        target=drawn.target,
        between=(moment, moment),
        share=drawn.share,
        needs=drawn.needs,
        for_seconds=dice.uniform(*drawn.for_seconds),
    )
