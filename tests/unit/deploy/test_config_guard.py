"""The judge of a guarded change: what is worse, by how much, and when too little is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.config_guard import JAM_SECONDS, MIN_RESULTS, Judgement, Margin, Quality, Tally, worse

MARGIN = Margin()
BEFORE = Quality(seconds=10.0, results=1_000, misses=0, errors=0, p50_ms=40.0, p99_ms=200.0)


@pytest.mark.parametrize(
    ("after", "named"),
    [
        (replace(BEFORE, p99_ms=351.0), "p99 is 351 ms, was 200 ms (limit 350 ms)"),
        (replace(BEFORE, p50_ms=151.0), "p50 is 151 ms"),
        (replace(BEFORE, misses=11), "deadline misses are 1.1%"),
        (replace(BEFORE, errors=11), "errors are 1.1%"),
        (replace(BEFORE, invalid=11), "invalid jobs are 1.1%"),
        (replace(BEFORE, results=190, waiting=MIN_RESULTS), "19.0 results a second, were 100.0, and 30 jobs wait"),
    ],
)
def test_each_measure_condemns_by_itself(after: Quality, named: str) -> None:
    (reason,) = worse(BEFORE, after, MARGIN)
    assert reason.startswith(named)


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        replace(BEFORE, p50_ms=1.0, p99_ms=2.0),
        replace(BEFORE, p99_ms=350.0, p50_ms=150.0),
        replace(BEFORE, misses=10, errors=10, invalid=10),
        replace(BEFORE, results=190, waiting=MIN_RESULTS - 1),
        replace(BEFORE, results=190, waiting=None),
        replace(BEFORE, results=10, waiting=1_000, seconds=JAM_SECONDS - 1),
    ],
)
def test_what_stays_within_the_margin_stays(after: Quality) -> None:
    assert worse(BEFORE, after, MARGIN) == []


def test_a_limit_that_refuses_every_job_is_worse_however_fast_it_refuses() -> None:
    before, after = Tally(), Tally()
    for _ in range(MIN_RESULTS):
        before.add("ok", 200.0)
        after.add("invalid", 1.0)
    judgement = Judgement(
        before.quality(1.0), after.quality(1.0), 5.0, tuple(worse(before.quality(1.0), after.quality(1.0), MARGIN))
    )
    assert judgement.reasons == ("invalid jobs are 100.0% of the results, were 0.0% (limit 1.0%)",)
    assert "invalid 100.0%" in judgement.text()


def test_bad_before_is_no_worse_after() -> None:
    bad = replace(BEFORE, misses=500, errors=500, invalid=500, p99_ms=9_000.0)
    assert worse(bad, bad, MARGIN) == []


def test_too_few_results_say_nothing() -> None:
    few = replace(BEFORE, results=MIN_RESULTS - 1)
    terrible = replace(BEFORE, p99_ms=9_000.0)
    assert worse(few, terrible, MARGIN) == []
    assert worse(BEFORE, replace(terrible, results=MIN_RESULTS - 1), MARGIN) == []
    assert "too few results" in Judgement(few, terrible, 5.0, ()).text()


def test_a_wider_margin_lets_more_pass() -> None:
    after = replace(BEFORE, p99_ms=450.0)
    assert worse(BEFORE, after, MARGIN)
    assert worse(BEFORE, after, Margin(p99_factor=2.0)) == []


def test_a_tally_counts_by_outcome_and_its_percentiles_are_within_a_step() -> None:
    tally = Tally()
    for ms in range(1, 101):
        tally.add("ok", float(ms))
    for outcome in ("deadline_exceeded", "error", "quarantined", "invalid"):
        tally.add(outcome, 1.0)
    found = tally.quality(2.0)
    assert (found.results, found.misses, found.errors, found.invalid, found.rate) == (104, 1, 2, 1, 52.0)
    assert found.p50_ms == pytest.approx(50, rel=0.06)
    assert found.p99_ms == pytest.approx(99, rel=0.06)
    assert Tally().quality(1.0).p99_ms is None
