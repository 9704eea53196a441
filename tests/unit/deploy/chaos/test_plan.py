"""Plans: the shipped ones are sound, a seed fixes the schedule, errors say what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.chaos.plan import PLANS, Kind, Target, choose, draw_schedule, load_plan, plan_names
from rayline.errors import ConfigError


@pytest.mark.parametrize("name", plan_names())
@given(seed=st.integers())
def test_a_seed_fixes_the_schedule_and_every_stroke_lies_in_its_span(name: str, seed: int) -> None:
    plan = load_plan(name)
    schedule = draw_schedule(plan, seed)
    assert schedule == draw_schedule(plan, seed)
    assert len(schedule) == sum(1 + (spec.again_within is not None) for spec in plan.faults)
    assert all(0 < fault.at_seconds < plan.load_seconds for fault in schedule)
    assert all(any(fault.at_seconds >= spec.between[0] for spec in plan.faults) for fault in schedule)


def test_another_seed_draws_other_moments() -> None:
    plan = load_plan("lane-kill")
    assert draw_schedule(plan, 1) != draw_schedule(plan, 2)


def test_a_second_stroke_hits_the_same_target() -> None:
    first, second, _ = draw_schedule(load_plan("lane-kill"), 1)
    assert first.draw == second.draw
    assert 0.3 <= second.at_seconds - first.at_seconds <= 3.0


def test_all_strikes_every_target_by_every_kind() -> None:
    faults = load_plan("all").faults
    assert {fault.target for fault in faults} == set(Target)
    assert {fault.kind for fault in faults} == set(Kind)


def test_an_unknown_plan_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="lane-kill"):
        load_plan("lane-kil")


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("{kind: notice, target: lane, between: [1, 2], for_seconds: 1}", "only a pod"),
        ("{kind: freeze, target: lane, between: [1, 2]}", "for_seconds"),
        ("{kind: kill, target: lane, between: [2, 1]}", "earliest"),
        ("{kind: melt, target: lane, between: [1, 2]}", "kind"),
    ],
)
def test_a_wrong_plan_says_what_is_wrong(tmp_path: Path, fault: str, named: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"summary: mine\nload_seconds: 5\nfaults:\n  - {fault}\n")
    with pytest.raises(ConfigError, match=named):
        load_plan(str(path))


def test_a_plan_of_ones_own_is_read_by_its_path() -> None:
    assert load_plan(str(PLANS / "pod-kill.yaml")) == load_plan("pod-kill")


@given(st.lists(st.integers(), min_size=1), st.floats(0, 1, exclude_max=True))
def test_choose_takes_one_of_the_candidates(candidates: list[int], draw: float) -> None:
    assert choose(candidates, draw) in candidates
    assert choose([], draw) is None
