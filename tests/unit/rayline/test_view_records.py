"""Records of `rayline.view`: read back the same, cut into chunks; whatever else stands there is a FormatError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.errors import FormatError
from rayline.lane_record import LaneRecord, decode_lane_record, encode_lane_record
from rayline.reports import NodeReport, NodeState
from rayline.view_record import ViewKey, decode_view_key, decode_view_record, encode_chunks

words = st.text("abc-1", min_size=1, max_size=8)
reports = st.lists(st.builds(NodeReport, words, words, st.integers(0, 9), st.integers(0, 9), st.sampled_from(NodeState)))


@given(reports, st.integers(0, 10_000), st.integers(1, 400))
def test_chunks_together_hold_each_report_once_and_stay_under_the_limit(
    given_reports: list[NodeReport], ears_age_ms: int, max_bytes: int
) -> None:
    values = list(encode_chunks(given_reports, ears_age_ms=ears_age_ms, max_bytes=max_bytes))
    read = [decode_view_record(value) for value in values]
    assert [report for record in read for report in record.reports] == given_reports
    assert {record.ears_age_ms for record in read} == {ears_age_ms}
    assert all(len(record.reports) <= 1 or len(value) <= max_bytes + 64 for record, value in zip(read, values, strict=True))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_view_record(data)
    with pytest.raises(FormatError):
        decode_lane_record(b"lanes/app/lane", data)
    decode_view_key(data)


@given(words, words, words)
def test_keys_tell_records_of_nodes_and_of_lanes_apart(group: str, resource: str, chunk: str) -> None:
    key = ViewKey(group, resource, chunk)
    assert decode_view_key(key.encode()) == key
    assert decode_lane_record(key.encode(), b"") is None
    left = {"c/m": {"by": "news", "out_after_ms": 3.5}}
    record = LaneRecord(group, resource, True, 7, {"c/n": {"weight": 1.25, "factors": {"cores": None}}}, left)
    assert decode_view_key(record.key) is None
    assert decode_lane_record(record.key, encode_lane_record(record)) == record
