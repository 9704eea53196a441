"""The judge of an app beside downloads: only jobs of the right time count, and each bar can be missed."""

from __future__ import annotations

from dataclasses import replace

from bench.serving_verdict import Beat, Latencies, Span, Verdict, fetching_spans, latencies_in, sums_of_rates

GOOD = Verdict(
    without=Latencies(2000, 0, 10.0, 100.0),
    beside=Latencies(2000, 0, 11.0, 109.0),
    rounds=4,
    mean_rate=20_000_000,
    agent_memory_bytes=150 * 2**20,
    limit=10_000_000,
    limited_rates=(10_000_000, 9_000_000),
)


def missed(verdict: Verdict) -> list[str]:
    return [bar for bar, met in verdict.bars().items() if not met]


def test_a_good_run_meets_every_bar_and_each_can_be_missed() -> None:
    assert missed(GOOD) == []
    worse = {
        "p99": replace(GOOD, beside=Latencies(2000, 0, 11.0, 111.0)),
        "every job": replace(GOOD, beside=Latencies(2000, 1, 11.0, 109.0)),
        "an agent": replace(GOOD, agent_memory_bytes=200 * 2**20),
        "the sum": replace(GOOD, limited_rates=(10_000_001,)),
    }
    for begin, verdict in worse.items():
        (bar,) = missed(verdict)
        assert bar.startswith(begin)


def test_a_run_that_shows_nothing_is_no_good_run() -> None:
    assert missed(replace(GOOD, beside=Latencies(10, 0, 1.0, 1.0)))
    assert missed(replace(GOOD, rounds=1))
    assert missed(replace(GOOD, limited_rates=()))
    assert missed(replace(GOOD, agent_memory_bytes=0))


def test_a_download_counts_from_when_all_nodes_fetch_until_one_does_not() -> None:
    beats = [
        Beat(0, "a", "", 0),
        Beat(1000, "a", "fetching", 5),
        Beat(2000, "b", "fetching", 5),
        Beat(3000, "a", "fetching", 5),
        Beat(4000, "a", "unpacking", 0),
        Beat(5000, "b", "fetching", 5),
        Beat(6000, "b", "ready", 0),
    ]
    assert fetching_spans(beats, 2) == [Span(2000, 3000)]
    assert fetching_spans(beats, 1) == [Span(1000, 5000)]
    assert fetching_spans(beats[:4], 2) == [Span(2000, 3000)], "also where the record ends in the middle"


def test_a_job_belongs_to_when_it_was_to_arrive_and_one_without_a_result_is_missing() -> None:
    intended = [100.0 * number for number in range(10)]
    seen = {number: at + 10 for number, at in enumerate(intended) if number != 3}
    found = latencies_in([Span(100, 500)], intended, seen)
    assert (found.jobs, found.missing, found.p50_ms) == (3, 1, 10.0)


def test_rates_count_from_five_seconds_after_the_change_while_somebody_fetches() -> None:
    limited = Span(0, 8_000)
    beats = [Beat(at, node, "fetching", rate) for at, node, rate in ((4_000, "a", 90), (4_500, "b", 80), (5_000, "a", 6))]
    more = [
        Beat(6_000, "b", "fetching", 5),
        Beat(7_000, "a", "ready", 0),
        Beat(7_500, "b", "ready", 0),
        Beat(9_000, "a", "fetching", 50),
    ]
    assert sums_of_rates([*beats, *more], limited) == (86, 11, 5)
