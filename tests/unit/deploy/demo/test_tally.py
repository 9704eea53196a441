"""The demo's own count while it runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.tally import Tally, percentile
from tests.unit.deploy.demo.recorded import read


def test_latency_counts_from_when_a_job_was_due() -> None:
    tally = Tally(planned=1)
    tally.sent("a", 10.0)
    tally.answered(read("a"), 12.5)
    assert tally.answers["a"].latency_ms == pytest.approx(2500)
    assert tally.complete


def test_a_second_result_of_a_job_and_a_foreign_one_change_nothing() -> None:
    tally = Tally(planned=2)
    tally.sent("a", 0.0)
    tally.answered(read("a"), 1.0)
    tally.answered(read("a", node="c2-pod-1"), 2.0)
    tally.answered(read("stranger"), 2.0)
    assert list(tally.nodes) == ["c1-pod-1"]
    assert tally.nodes["c1-pod-1"].jobs == 1
    assert not tally.complete


def test_batches_and_retries_are_counted_by_node() -> None:
    tally = Tally(planned=3)
    for job_id, batch, attempts in (("a", "7/2", 1), ("b", "7/2", 1), ("c", "8/1", 3)):
        tally.sent(job_id, 0.0)
        tally.answered(read(job_id, batch=batch, attempts=attempts), 1.0)
    node = tally.nodes["c1-pod-1"]
    assert (len(node.batches), node.retried_jobs, tally.retries) == (2, 1, 2)


def test_rate_forgets_and_waiting_is_the_oldest() -> None:
    tally = Tally(planned=9)
    for number in range(5):
        tally.sent(str(number), float(number))
        tally.answered(read(str(number)), float(number))
    tally.sent("late", 6.0)
    assert tally.rate_per_second(4.0) == pytest.approx(1.0)
    assert tally.rate_per_second(100.0) == 0.0
    assert tally.oldest_waiting_seconds(9.0) == pytest.approx(3.0)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.5) == 0.0
