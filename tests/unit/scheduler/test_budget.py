"""The budget of retries and hedges: never more extra load than declared, and never so little that nothing goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.budget import EXTRA_SHARE, RESERVE_JOBS, RESERVE_REFILL_SECONDS, RetryBudget

_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["first", "again", "turned away", "first turned away", "wait"]),
        st.integers(1, 2 * RESERVE_JOBS),
        st.floats(0, 30),
    ),
    max_size=200,
)


@given(_EVENTS)
def test_extra_load_stays_below_the_share_and_the_reserve_whatever_the_order(
    events: list[tuple[str, int, float]],
) -> None:
    budget, now, first, extra, largest = RetryBudget(now=0.0), 0.0, 0, 0, 0
    for kind, jobs, seconds in events:
        match kind:
            case "first":
                budget.deposit(jobs, now)
                first += jobs
            case "again":
                if budget.spend(jobs, now):
                    extra += jobs
                    largest = max(largest, jobs)
                    # A batch may be larger than the reserve: it is paid off afterwards.
                    debt = max(0, largest - RESERVE_JOBS)
                    assert extra <= EXTRA_SHARE * first + RESERVE_JOBS * (1 + now / RESERVE_REFILL_SECONDS) + debt + 1e-6
            case "turned away":
                if budget.spend(jobs, now):
                    budget.hand_back(jobs, now, paid=True)
            case "first turned away" if first >= jobs:
                # What was spent of its deposit meanwhile is a debt, which the next spending must allow for.
                budget.hand_back(jobs, now, paid=False)
                first -= jobs
            case "wait":
                now += seconds


@given(st.integers(1, 10 * RESERVE_JOBS), _EVENTS)
def test_whatever_was_spent_any_batch_is_affordable_after_a_while(jobs: int, events: list[tuple[str, int, float]]) -> None:
    budget, now = RetryBudget(now=0.0), 0.0
    for kind, count, seconds in events:
        if kind == "again":
            budget.spend(count, now)
        now += seconds
    assert budget.spend(jobs, now + 2 * RESERVE_REFILL_SECONDS + 30)


def test_a_quiet_app_retries_a_batch_at_once() -> None:
    budget = RetryBudget(now=5.0)
    budget.deposit(64, 5.0)
    assert budget.spend(64, 5.0)


def test_a_steady_rate_buys_two_seconds_of_it() -> None:
    budget = RetryBudget(now=0.0)
    for second in range(60):
        budget.deposit(1_000, float(second))
    assert 1_800 < budget.available(60.0) - RESERVE_JOBS < 2_200


def test_a_first_dispatch_that_is_turned_away_buys_nothing() -> None:
    budget = RetryBudget(now=0.0)
    for _ in range(100):
        budget.deposit(500, 0.0)
        budget.hand_back(500, 0.0, paid=False)
    assert budget.available(0.0) == RESERVE_JOBS
