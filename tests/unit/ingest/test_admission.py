"""Admission: which records are jobs, and what their headers make of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.admission import LETTER_ROOM_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, Admission, Reason, Rejection
from rayline.app_spec import AppSpec, Limits
from rayline.bus.cut_records import CutRecord
from rayline.clock import BrokerClock
from rayline.jobs import MAX_JOB_ID_BYTES, ContentType, Job
from rayline.topics import DEFAULT_MAX_MESSAGE_BYTES
from tests.unit.ingest.jobs import Record

NOW_MS = 2_000_000
SPEC = AppSpec("app", "1", "/", "m:f", sla_seconds=10.0, limits=Limits(max_job_bytes=1_000))


@pytest.fixture
def admission() -> Admission:
    """Rules of an app with an SLA of 10 s; at monotonic 0 the broker's clock says NOW_MS."""
    return Admission(spec=SPEC, clock=BrokerClock(wall_ms=NOW_MS, monotonic=0.0))


def accepted(admission: Admission, record: Record) -> Job:
    admitted = admission.admit("app.requests", 3, record, 0.0)  # type: ignore[arg-type]
    assert isinstance(admitted, Job), admitted
    return admitted


def refused(admission: Admission, record: Record) -> Rejection:
    admitted = admission.admit("app.requests", 3, record, 0.0)  # type: ignore[arg-type]
    assert isinstance(admitted, Rejection)
    return admitted


def test_a_plain_record_is_a_job_due_one_sla_after_the_broker_took_it(admission: Admission) -> None:
    job = accepted(admission, Record(timestamp=NOW_MS - 4_000))
    assert job.expires == pytest.approx(6.0)
    assert (job.job_id, job.source, job.content_type) == ("3-42", "app.requests/3/42", ContentType.MSGPACK)


@given(st.lists(st.tuples(st.sampled_from(["job-id", "ce_id"]), st.text(min_size=1, max_size=20)), min_size=1, max_size=6))
def test_the_last_job_id_counts_and_ce_id_only_without_one(given_ids: list[tuple[str, str]]) -> None:
    admission = Admission(spec=SPEC, clock=BrokerClock(wall_ms=NOW_MS, monotonic=0.0))
    job = accepted(admission, Record(headers=[(name, text.encode()) for name, text in given_ids]))
    last = dict(given_ids)
    assert job.job_id == last.get("job-id", last.get("ce_id"))


@pytest.mark.parametrize("raw", [b"", None, b"\xff", b"x" * (MAX_JOB_ID_BYTES + 1), "ä".encode() * 65])
def test_an_id_that_cannot_be_one_is_refused_wherever_it_counts(admission: Admission, raw: bytes | None) -> None:
    assert refused(admission, Record(headers=[("job-id", raw)])).reason is Reason.BAD_HEADER
    assert refused(admission, Record(headers=[("ce_id", raw)])).reason is Reason.BAD_HEADER
    overruled = Record(headers=[("ce_id", raw), ("job-id", raw), ("job-id", b"good")])
    assert accepted(admission, overruled).job_id == "good"


def test_an_id_of_the_greatest_length_is_taken(admission: Admission) -> None:
    assert accepted(admission, Record(headers=[("job-id", b"x" * MAX_JOB_ID_BYTES)])).job_id == "x" * MAX_JOB_ID_BYTES


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("content-type", b"application/json")], ContentType.JSON),
        ([("content-type", b"application/json; charset=utf-8")], ContentType.JSON),
        ([("content-type", b" Application/JSON ;charset=UTF-8")], ContentType.JSON),
        ([("content-type", b"application/x-msgpack")], ContentType.MSGPACK),
        ([("ce_datacontenttype", b"application/json")], ContentType.JSON),
        ([("ce_datacontenttype", b"application/json"), ("content-type", b"application/msgpack")], ContentType.MSGPACK),
        ([("content-type", b"text/xml"), ("content-type", b"application/json")], ContentType.JSON),
    ],
)
def test_the_content_type_is_what_the_headers_say(
    admission: Admission, headers: list[tuple[str, bytes | None]], expected: ContentType
) -> None:
    assert accepted(admission, Record(headers=headers)).content_type is expected


@pytest.mark.parametrize("raw", [b"text/xml", b"", None, b"application/jsonx", b"\xff\xfe"])
def test_a_content_type_that_no_worker_decodes_is_refused(admission: Admission, raw: bytes | None) -> None:
    assert refused(admission, Record(headers=[("content-type", raw)])).reason is Reason.UNSUPPORTED_CONTENT_TYPE


@given(st.integers(0, 10**15 - 1))
def test_a_deadline_counts_as_it_is_given(deadline_ms: int) -> None:
    admission = Admission(spec=SPEC, clock=BrokerClock(wall_ms=NOW_MS, monotonic=0.0))
    job = accepted(admission, Record(headers=[("deadline-ms", b"%d" % deadline_ms)]))
    assert job.expires == pytest.approx((deadline_ms - NOW_MS) / 1000, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("raw", [b"", None, b"soon", b"-1", b"1.5", b" 5", b"9" * 16, "٣".encode(), b"1_000"])
def test_a_deadline_that_is_no_number_is_refused(admission: Admission, raw: bytes | None) -> None:
    rejection = refused(admission, Record(headers=[("deadline-ms", raw)]))
    assert rejection.reason is Reason.BAD_HEADER
    assert "deadline-ms" in rejection.message


def test_more_headers_than_allowed_are_refused_in_number_and_in_bytes(admission: Admission) -> None:
    assert accepted(admission, Record(headers=[("h", b"")] * MAX_HEADERS))
    assert refused(admission, Record(headers=[("h", b"")] * (MAX_HEADERS + 1))).reason is Reason.BAD_HEADER
    assert accepted(admission, Record(headers=[("h", b"x" * (MAX_HEADER_BYTES - 1))]))
    assert refused(admission, Record(headers=[("h", b"x" * MAX_HEADER_BYTES)])).reason is Reason.BAD_HEADER


def test_a_payload_of_the_greatest_size_is_taken_and_one_byte_more_is_not(admission: Admission) -> None:
    assert accepted(admission, Record(value=bytes(1_000)))
    rejection = refused(admission, Record(value=bytes(1_001)))
    assert rejection.reason is Reason.TOO_LARGE
    assert "limits.max_job_bytes" in rejection.message


def cut(headers: list[tuple[str, bytes | None]]) -> CutRecord:
    return CutRecord(42, 1_000_000, 1, b"key", None, headers)


def test_a_record_whose_batch_inflates_too_far_keeps_its_id_and_is_no_tombstone(admission: Admission) -> None:
    rejection = refused(admission, cut([("job-id", b"mine")]))  # type: ignore[arg-type]
    assert (rejection.reason, rejection.tombstone, rejection.whole) == (Reason.INFLATES, False, False)
    assert (rejection.job.job_id, rejection.job.key, rejection.job.payload) == ("mine", b"key", b"")


def test_that_its_batch_inflates_too_far_counts_before_bad_headers(admission: Admission) -> None:
    assert refused(admission, cut([("deadline-ms", b"soon")])).reason is Reason.INFLATES  # type: ignore[arg-type]


def test_a_payload_that_no_dead_letter_can_hold_is_not_kept(admission: Admission) -> None:
    most = DEFAULT_MAX_MESSAGE_BYTES + LETTER_ROOM_BYTES
    kept, dropped = refused(admission, Record(value=bytes(most))), refused(admission, Record(value=bytes(most + 1)))
    assert (kept.reason, kept.whole, len(kept.job.payload)) == (Reason.TOO_LARGE, True, most)
    assert (dropped.reason, dropped.whole, len(dropped.job.payload)) == (Reason.TOO_LARGE, False, 0)


def test_letters_of_payloads_that_were_allowed_before_are_kept_whole(admission: Admission) -> None:
    admission.update(replace(SPEC, limits=Limits(max_job_bytes=3 << 20)))
    admission.update(SPEC)
    assert refused(admission, Record(value=bytes(3 << 20))).whole


@pytest.mark.parametrize(("value", "tombstone"), [(None, True), (b"", False)])
def test_a_record_without_payload_is_refused_and_a_tombstone_remembered(
    admission: Admission, value: bytes | None, tombstone: bool
) -> None:
    rejection = refused(admission, Record(value=value, headers=[("job-id", b"mine")]))
    assert (rejection.reason, rejection.tombstone) == (Reason.EMPTY, tombstone)
    assert rejection.job.job_id == "mine"


@pytest.mark.parametrize(
    ("timestamp", "kind", "expires"),
    [
        (NOW_MS + 3_600_000, 0, 10.0),  # a producer's clock an hour ahead wins nothing
        (NOW_MS + 500, 1, 10.5),  # the broker's own time is the truth
        (NOW_MS - 5_000, 0, 5.0),
        (-1, 0, 10.0),
        (-1, 1, 10.0),
    ],
)
def test_the_deadline_follows_the_records_time_but_never_a_fast_producers(
    admission: Admission, timestamp: int, kind: int, expires: float
) -> None:
    assert accepted(admission, Record(timestamp=timestamp, timestamp_type=kind)).expires == pytest.approx(expires)


def test_a_new_version_of_the_app_rules_over_what_comes_after_it(admission: Admission) -> None:
    admission.update(replace(SPEC, sla_seconds=2.0, limits=Limits(max_job_bytes=5)))
    assert accepted(admission, Record(value=b"12345", timestamp=NOW_MS)).expires == pytest.approx(2.0)
    assert refused(admission, Record(value=b"123456")).reason is Reason.TOO_LARGE


@given(
    st.one_of(st.none(), st.binary(max_size=2_000)),
    st.lists(
        st.tuples(
            st.sampled_from(["job-id", "ce_id", "content-type", "ce_datacontenttype", "deadline-ms", "other"]),
            st.one_of(st.none(), st.binary(max_size=200)),
        ),
        max_size=70,
    ),
)
def test_any_record_is_a_job_or_a_rejection_that_keeps_it_whole(
    value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    admission = Admission(spec=SPEC, clock=BrokerClock(wall_ms=NOW_MS, monotonic=0.0))
    admitted = admission.admit("app.requests", 3, Record(value=value, headers=headers), 0.0)  # type: ignore[arg-type]
    job = admitted.job if isinstance(admitted, Rejection) else admitted
    assert (job.payload, list(job.headers)) == (value or b"", headers)
