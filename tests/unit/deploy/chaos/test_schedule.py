"""A schedule is a function of plan and seed, and of nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.chaos.plan import FaultSpec, Kind, Pick, Target, load_plan, plan_names
from deploy.chaos.schedule import Fault, choose, draw_schedule, spread


def stroke(draw: float = 0.5, **options: object) -> Fault:
    spec = FaultSpec.model_validate({"kind": Kind.KILL, "target": Target.POD, "between": (1, 2), **options})
    return Fault(1.0, draw, spec)


@pytest.mark.parametrize("name", plan_names())
@settings(max_examples=10)
@given(seed=st.integers())
def test_a_seed_fixes_the_schedule(name: str, seed: int) -> None:
    plan = load_plan(name)
    schedule = draw_schedule(plan, seed)
    assert schedule == draw_schedule(plan, seed)
    assert [fault.at_seconds for fault in schedule] == sorted(fault.at_seconds for fault in schedule)
    assert all(0 <= fault.draw < 1 for fault in schedule)


@given(seed=st.integers())
def test_strokes_lie_where_the_plan_says(seed: int) -> None:
    plan = load_plan("lane-kill")
    first, second, third = draw_schedule(plan, seed)
    assert 3 <= first.at_seconds <= 5
    assert 0.3 <= second.at_seconds - first.at_seconds <= 3.0
    assert first.draw == second.draw
    assert 11 <= third.at_seconds <= 13


@given(seed=st.integers())
def test_a_repeated_fault_keeps_its_pace(seed: int) -> None:
    schedule = draw_schedule(load_plan("notice"), seed)
    assert len(schedule) == 200
    for number, fault in enumerate(schedule):
        assert 5 + number * 6 <= fault.at_seconds <= 5 + number * 6 + 3


@given(seed=st.integers())
def test_accidents_stay_inside_their_span_and_last_as_long_as_they_may(seed: int) -> None:
    plan = load_plan("random")
    assert plan.random is not None
    for fault in draw_schedule(plan, seed):
        assert plan.random.start < fault.at_seconds < plan.random.until
        allowed = [f for f in plan.random.faults if (f.kind, f.target) == (fault.spec.kind, fault.spec.target)]
        assert any(f.for_seconds[0] <= fault.spec.for_seconds <= f.for_seconds[1] for f in allowed)


def test_another_seed_draws_other_accidents() -> None:
    plan = load_plan("random")
    assert draw_schedule(plan, 1) != draw_schedule(plan, 2)


@given(st.lists(st.integers(), min_size=1, unique=True), st.floats(0, 1, exclude_max=True))
def test_one_of_the_candidates_is_struck(candidates: list[int], draw: float) -> None:
    (chosen,) = choose(candidates, stroke(draw))
    assert chosen in candidates
    assert choose(candidates, stroke(draw, pick=Pick.OLDEST)) == candidates[:1]
    assert choose(candidates, stroke(draw, pick=Pick.NEWEST)) == candidates[-1:]
    assert choose([], stroke(draw)) == []


@given(st.lists(st.integers(), min_size=1, unique=True), st.floats(0.01, 1), st.floats(0, 1, exclude_max=True))
def test_a_share_strikes_so_many_different_ones_in_the_given_time(candidates: list[int], share: float, draw: float) -> None:
    fault = stroke(draw, share=share, within=1.0)
    chosen = choose(candidates, fault)
    assert len(set(chosen)) == len(chosen) == max(1, round(share * len(candidates)))
    delays = spread(fault, len(chosen))
    assert len(delays) == len(chosen)
    assert all(0 <= delay <= 1.0 for delay in delays)
