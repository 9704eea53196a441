"""Result and dead-letter records: what a reader gets, and what a producer cannot forge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.records import Ended, dead_letter_headers, journey_headers, lone_headers, result_headers
from rayline import results
from rayline.bus.record_batch import RecordBatchWriter, read_batch
from rayline.jobs import CONTENT_TYPE, DEADLINE_MS, ContentType, Header
from rayline.results import Outcome, Result, Tried, parse_result
from scheduler.batch import MAX_TRIED, Cause, Sent, Trail
from scheduler.dispatcher import Journey
from tests.unit.ingest.jobs import job

FIRST = Sent("c2", "n2", "v6", "0-0", 65, b"tier=idle")
SENT = Sent("c1", "n1", "v7", "0-1", 64, b"tier=room")
TRAIL = Trail().sent_to(FIRST).ended(FIRST, Cause.EVICTED).sent_to(SENT)
JOURNEY = Journey(SENT, TRAIL, "m3", dispatched=10.5, answered=10.9, execute_ms=300.0)
OURS = sorted({*results.RESULT_HEADERS, DEADLINE_MS, CONTENT_TYPE})
names = st.one_of(st.sampled_from(OURS), st.text(max_size=12))
header_lists = st.lists(st.tuples(names, st.binary(max_size=20)), max_size=12)


def headers_of(ended: Ended) -> list[Header]:
    shared = lone_headers(ended, now=11.0) if ended.journey is None else journey_headers(ended.journey, now=11.0)
    headers = result_headers(ended, shared, place=b"app.requests/0/", appended_ms=1_000.0, arrived_ms=1_040.0)
    writer = RecordBatchWriter()
    writer.append(key=None, value=None, headers=headers)
    (record,) = read_batch(writer.build(-1, -1, -1))
    return [(name, raw or b"") for name, raw in record.headers]


@given(header_lists, st.sampled_from(list(ContentType)))
def test_a_result_names_itself_whatever_headers_its_job_had(headers: list[Header], content_type: ContentType) -> None:
    one = job(5, headers=tuple(headers), given_id="id-5", content_type=content_type, arrived=10.0)
    out = headers_of(Ended(one, Outcome.OK, b"f", None, None, TRAIL, 10.9, JOURNEY))
    result = parse_result(key=one.key, value=b"f", headers=out, timestamp_ms=1)
    assert (result.job_id, result.outcome, result.source) == ("id-5", Outcome.OK, "app.requests/0/5")
    assert (result.cluster, result.node, result.app_version, result.model_version) == ("c1", "n1", "v7", "m3")
    assert (result.attempts, result.batch, result.content_type, result.error_type) == (2, "0-1/64", content_type, None)
    assert len({name for name, _ in out if name in OURS}) == sum(name in OURS for name, _ in out), "a spoofed header got through"
    assert [pair for pair in out if pair[0] not in OURS] == [pair for pair in headers if pair[0] not in OURS]


def told(ended: Ended) -> Result:
    return parse_result(key=None, value=ended.value, headers=headers_of(ended), timestamp_ms=1)


def test_an_answer_names_the_attempts_before_it_and_a_job_without_one_all_of_them() -> None:
    first = Tried("c2", "n2", "evicted", "0-0")
    answered = told(Ended(job(), Outcome.OK, b"f", None, None, TRAIL, 10.9, JOURNEY))
    assert (answered.answered, answered.tried) == (True, (first,))
    for trail, cause in ((TRAIL, "running"), (TRAIL.ended(SENT, Cause.KILLED), "killed")):
        given_up = told(Ended(job(), Outcome.QUARANTINED, None, "T", "m", trail, 10.9))
        assert (given_up.answered, given_up.tried) == (False, (first, Tried("c1", "n1", cause, "0-1")))
        assert (given_up.cluster, given_up.node, given_up.app_version, given_up.batch) == ("c1", "n1", "v7", "0-1/64")
        assert (given_up.attempts, given_up.pick, given_up.model_version) == (2, "tier=room", None)
        assert (given_up.timing_ms["dispatch"], given_up.timing_ms["execute"]) == (0.0, 0.0)
    once = Journey(SENT, Trail().sent_to(SENT), None, dispatched=10.5, answered=10.9, execute_ms=300.0)
    assert results.TRIED not in dict(headers_of(Ended(job(), Outcome.OK, b"f", None, None, once.trail, 10.9, once)))


def test_a_result_tells_of_the_last_attempts_only() -> None:
    trail = Trail()
    for number in range(3 * MAX_TRIED):
        sent = Sent("c", f"n{number}", "v", f"b-{number}", 1)
        trail = trail.sent_to(sent).ended(sent, Cause.EVICTED)
    result = told(Ended(job(), Outcome.ERROR, None, "T", "m", trail, 10.9))
    assert (result.attempts, len(result.tried), result.node) == (3 * MAX_TRIED, MAX_TRIED, f"n{3 * MAX_TRIED - 1}")


def test_the_time_of_a_job_is_split_into_queue_dispatch_execute_and_publish() -> None:
    one = job(5, arrived=10.0)
    out = headers_of(Ended(one, Outcome.OK, b"f", None, None, TRAIL, 10.9, JOURNEY))
    timing = parse_result(key=None, value=b"f", headers=out, timestamp_ms=1).timing_ms
    assert timing == pytest.approx({"queue": 540.0, "dispatch": 100.0, "execute": 300.0, "publish": 100.0})


@given(st.text(max_size=300), st.text(max_size=5_000))
def test_an_error_is_told_within_bounds_and_never_breaks_the_record(error_type: str, message: str) -> None:
    out = headers_of(Ended(job(), Outcome.ERROR, None, error_type, message, Trail(), 10.0))
    result = parse_result(key=None, value=None, headers=out, timestamp_ms=1)
    assert result.error_type == error_type[: results.MAX_ERROR_TYPE_CHARS].encode("utf-8", "replace").decode()
    assert len(result.error_message or "") <= results.MAX_ERROR_MESSAGE_CHARS
    assert (result.attempts, result.node, result.answered, result.tried) == (0, None, False, ())


@given(header_lists)
def test_a_dead_letter_is_the_job_as_it_was_and_why(headers: list[Header]) -> None:
    given_headers = [*headers, ("dlq-reason", b"forged")]
    one = job(9, headers=tuple(given_headers))
    out = dead_letter_headers(
        Ended(one, Outcome.INVALID, None, "T", "no good", Trail(), 0.0, dead_letter="bad_header"), time_ms=77
    )
    ours = out[-3:]
    assert out[:-3] == [pair for pair in headers if pair[0] not in results.DLQ_HEADERS]
    assert ours == [("dlq-reason", b"bad_header: no good"), ("dlq-source", b"app.requests/0/9"), ("dlq-time", b"77")]


def test_what_the_broker_refuses_for_its_size_loses_what_the_job_brought_along() -> None:
    one = job(9, headers=(("mine", b"x"),))
    bare = Ended(one, Outcome.INVALID, None, "T", "m", Trail(), 0.0, dead_letter="too_large", letter_whole=False, bare=True)
    assert "mine" not in dict(headers_of(bare))
    letter = dict(dead_letter_headers(bare, time_ms=1))
    assert set(letter) == results.DLQ_HEADERS
    assert b"read it from its source" in letter["dlq-reason"]
