"""The policy of restarts: what follows the end of a process, and how soon."""

from __future__ import annotations

import pytest

from deploy.local.supervision import HEALTHY_SECONDS, MAX_DELAY_SECONDS, Action, Role, Step, Supervision


def end(
    policy: Supervision, role: Role, name: str = "x", *, ran: float = 1.0, asked: bool = False, evicted: bool = False
) -> Action | None:
    return policy.ended(name=name, role=role, cluster="c1", ran_seconds=ran, asked_for=asked, evicted=evicted)


@pytest.mark.parametrize("role", list(Role))
def test_an_end_that_was_asked_for_is_followed_by_nothing(role: Role) -> None:
    assert end(Supervision(), role, asked=True) is None


@pytest.mark.parametrize(
    ("role", "step"),
    [
        (Role.BROKER, Step.RESTART),
        (Role.LANE, Step.RESTART),
        (Role.GATEWAY, Step.RESTART),
        (Role.POD, Step.REPLACE_POD),
        (Role.HEAD, Step.REBUILD_CLUSTER),
    ],
)
def test_each_role_has_its_step_and_the_first_comes_within_a_fifth_of_a_second(role: Role, step: Step) -> None:
    action = end(Supervision(), role)
    assert action is not None
    assert action.step is step
    assert action.delay_seconds <= 0.2


def test_what_fails_again_and_again_waits_longer_each_time_up_to_a_bound() -> None:
    policy = Supervision()
    delays = [action.delay_seconds for _ in range(12) if (action := end(policy, Role.LANE))]
    assert delays == sorted(delays)
    assert delays[1] < delays[3] < delays[-1] == MAX_DELAY_SECONDS


def test_a_healthy_run_clears_the_count() -> None:
    policy = Supervision()
    for _ in range(5):
        end(policy, Role.LANE)
    action = end(policy, Role.LANE, ran=HEALTHY_SECONDS)
    assert action is not None
    assert action.delay_seconds <= 0.2


def test_replacements_of_pods_count_together_although_each_has_a_new_name() -> None:
    policy = Supervision()
    first, second = end(policy, Role.POD, "c1-pod-1"), end(policy, Role.POD, "c1-pod-2")
    assert first is not None
    assert second is not None
    assert second.delay_seconds > first.delay_seconds


def test_evictions_are_replaced_at_once_however_many() -> None:
    policy = Supervision()
    assert {action.delay_seconds for _ in range(5) if (action := end(policy, Role.POD, evicted=True))} == {0.05}


def test_one_lanes_failures_do_not_slow_another() -> None:
    policy = Supervision()
    for _ in range(5):
        end(policy, Role.LANE, "a")
    action = end(policy, Role.LANE, "b")
    assert action is not None
    assert action.delay_seconds <= 0.2
