"""The judge counts what is lost, double, foreign or late, whatever the order of results."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.checker import MAX_EXAMPLES, Correlation, Judge, LatencyMs
from deploy.committed_reader import Record

TOPIC = "app.requests"


def _job(partition: int, offset: int, *, at_ms: int = 1000, job_id: str | None = None, value: bytes = b"v") -> Record:
    headers = ((("job-id", job_id.encode()),) if job_id is not None else ()) + (("unrelated", None),)
    return Record(partition, offset, at_ms, f"{partition}:{offset}".encode(), value, headers)


def _result(
    partition: int,
    offset: int,
    *,
    at_ms: int = 1005,
    job_id: str | None = None,
    outcome: str = "ok",
    topic: str = TOPIC,
    value: bytes = b"v",
) -> Record:
    headers = (
        ("source", f"{topic}/{partition}/{offset}".encode()),
        ("job-id", (job_id or f"{partition}-{offset}").encode()),
        ("outcome", outcome.encode()),
    )
    return Record(0, 0, at_ms, f"{partition}:{offset}".encode(), value, headers)


@given(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 30)), st.integers(0, 3), max_size=60), st.randoms())
def test_counts_are_exact_for_any_number_of_results_a_job_and_any_gaps(answers: dict[tuple[int, int], int], rng: object) -> None:
    judge = Judge(requests_topic=TOPIC)
    for partition, offset in sorted(answers):
        judge.job(_job(partition, offset))
    results = [position for position, count in answers.items() for _ in range(count)]
    rng.shuffle(results)  # type: ignore[attr-defined]
    for partition, offset in results:
        judge.result(_result(partition, offset))
    report = judge.report()
    counts = Counter(answers.values())
    assert report.jobs == len(answers)
    assert report.lost == counts[0]
    assert report.duplicated == counts[2] + 2 * counts[3]
    assert report.unknown == report.mismatched_ids == 0
    assert report.exactly_once == (report.lost == report.duplicated == 0)
    named = {tuple(map(int, source.rsplit("/", 2)[1:])) for source in report.lost_examples}
    assert named <= {position for position, count in answers.items() if not count}
    assert len(named) == min(counts[0], MAX_EXAMPLES)


@pytest.mark.parametrize(
    "result",
    [
        _result(0, 6),  # in a gap of the log
        _result(0, 99),
        _result(0, 4),  # before the first job that was read
        _result(7, 5),
        _result(0, 5, topic="other.requests"),
        Record(0, 0, 1, None, None, (("source", b"app.requests/0/-5"),)),
        Record(0, 0, 1, None, None, (("source", b"\xff"),)),
        Record(0, 0, 1, None, None, ()),
    ],
)
def test_a_result_that_names_no_job_is_unknown_and_answers_nothing(result: Record) -> None:
    judge = Judge(requests_topic=TOPIC)
    judge.job(_job(0, 5))
    judge.job(_job(0, 7))
    judge.result(result)
    report = judge.report()
    assert (report.unknown, report.lost, report.duplicated) == (1, 2, 0)
    assert not report.exactly_once


def test_job_ids_are_cross_checked_given_or_default() -> None:
    judge = Judge(requests_topic=TOPIC)
    judge.job(_job(0, 0, job_id="mine"))
    judge.job(_job(0, 1))
    judge.job(_job(0, 2, job_id="his"))
    judge.result(_result(0, 0, job_id="mine"))
    judge.result(_result(0, 1))
    judge.result(_result(0, 2, job_id="hers"))
    assert judge.report().mismatched_ids == 1


def test_late_is_over_the_sla_by_broker_time_and_first_result_counts() -> None:
    judge = Judge(requests_topic=TOPIC, sla_seconds=10)
    for offset, latency_ms in enumerate([10, 10_000, 10_001]):
        judge.job(_job(0, offset))
        judge.result(_result(0, offset, at_ms=1000 + latency_ms, outcome="ok" if offset else "error"))
    judge.result(_result(0, 0, at_ms=60_000))  # a duplicate is not late as well
    report = judge.report()
    assert (report.late, report.duplicated) == (1, 1)
    assert [late.source for late in report.late_examples] == ["app.requests/0/2"]
    assert report.latency_ms == LatencyMs(10_000, 10_001, 10_001, 10_001)
    assert report.outcomes == {"error": 1, "ok": 3}
    assert report.to_json()["latency_ms"] == {"p50": 10_000, "p99": 10_001, "p99.9": 10_001, "max": 10_001}


def test_payload_is_compared_for_ok_results_only() -> None:
    judge = Judge(requests_topic=TOPIC, expected_result=bytes.upper)
    for offset in range(3):
        judge.job(_job(0, offset, value=b"abc"))
    judge.result(_result(0, 0, value=b"ABC"))
    judge.result(_result(0, 1, value=b"abc"))
    judge.result(_result(0, 2, value=b"", outcome="error"))
    assert judge.report().wrong_payload == 1


def test_systems_without_source_header_are_matched_by_key() -> None:
    judge = Judge(requests_topic=TOPIC, correlation=Correlation.KEY)
    for offset in range(3):
        judge.job(_job(0, offset))
    for key in (b"0:0", b"0:1", b"0:1", b"0:9"):
        judge.result(Record(1, 0, 1007, key, b"v", ()))
    report = judge.report()
    assert (report.lost, report.duplicated, report.unknown, report.mismatched_ids) == (1, 1, 1, 0)


def test_matching_by_key_refuses_jobs_that_share_one() -> None:
    judge = Judge(requests_topic=TOPIC, correlation=Correlation.KEY)
    judge.job(Record(0, 0, 1, b"same", b"", ()))
    with pytest.raises(ValueError, match="correlate by source"):
        judge.job(Record(0, 1, 1, b"same", b"", ()))


def test_throughput_counts_jobs_answered_between_first_and_last_result() -> None:
    judge = Judge(requests_topic=TOPIC)
    for offset in range(4):
        judge.job(_job(0, offset))
        judge.result(_result(0, offset, at_ms=2000 + 500 * offset))
    judge.result(_result(0, 0, at_ms=4000))
    assert judge.report().jobs_per_s == pytest.approx(4 / 2.0)
