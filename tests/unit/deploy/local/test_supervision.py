"""The policy of restarts: how soon what ended is started again."""

from __future__ import annotations

from deploy.local.supervision import HEALTHY_SECONDS, MAX_DELAY_SECONDS, Supervision


def delays(policy: Supervision, name: str, count: int, *, ran_seconds: float = 1.0) -> list[float]:
    return [policy.restart_delay(name, ran_seconds=ran_seconds) for _ in range(count)]


def test_the_first_restart_comes_within_a_fifth_of_a_second() -> None:
    assert Supervision().restart_delay("lane", ran_seconds=0.0) <= 0.2


def test_what_fails_again_and_again_waits_longer_each_time_up_to_a_bound() -> None:
    found = delays(Supervision(), "lane", 12)
    assert found == sorted(found)
    assert found[1] < found[3] < found[-1] == MAX_DELAY_SECONDS


def test_a_healthy_run_clears_the_count() -> None:
    policy = Supervision()
    delays(policy, "lane", 5)
    assert policy.restart_delay("lane", ran_seconds=HEALTHY_SECONDS) <= 0.2
    assert policy.restart_delay("lane", ran_seconds=1.0) == 0.5


def test_one_lanes_failures_do_not_slow_another() -> None:
    policy = Supervision()
    delays(policy, "a", 5)
    assert policy.restart_delay("b", ran_seconds=1.0) <= 0.2
