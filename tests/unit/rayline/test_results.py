"""Results: what a reader makes of a record's headers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.codec import encode_payload
from rayline.errors import FormatError
from rayline.jobs import ContentType
from rayline.results import Outcome, format_timing_after_queue, parse_result, parse_timing, to_json

REQUIRED = [("job-id", b"7"), ("outcome", b"ok"), ("source", b"a.requests/0/7")]
durations = st.floats(0, 1e7)


@given(durations, durations, durations, durations)
def test_timing_reads_back_to_a_tenth_of_a_millisecond(queue: float, dispatch: float, execute: float, publish: float) -> None:
    after = format_timing_after_queue(dispatch_ms=dispatch, execute_ms=execute, publish_ms=publish).decode()
    text = f"queue={queue:.1f}{after}"
    expected = {"queue": queue, "dispatch": dispatch, "execute": execute, "publish": publish}
    assert parse_timing(text) == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("missing", ["job-id", "outcome", "source"])
def test_a_record_without_what_every_result_has_is_no_result(missing: str) -> None:
    with pytest.raises(FormatError, match=missing):
        parse_result(key=None, value=None, headers=[pair for pair in REQUIRED if pair[0] != missing], timestamp_ms=0)


@given(st.sampled_from(["outcome", "content-type", "attempts", "timing"]), st.binary(max_size=20))
def test_a_wrong_header_is_a_format_error_and_nothing_else(name: str, raw: bytes) -> None:
    try:
        result = parse_result(key=None, value=None, headers=[*REQUIRED, (name, raw)], timestamp_ms=0)
    except FormatError:
        return
    assert isinstance(result.outcome, Outcome)


@pytest.mark.parametrize("content_type", list(ContentType))
def test_a_feature_is_decoded_by_the_content_type_of_its_result(content_type: ContentType) -> None:
    value = encode_payload({"a": [1, 2]}, content_type)
    result = parse_result(
        key=b"k", value=value, headers=[*REQUIRED, ("content-type", content_type.value.encode())], timestamp_ms=5
    )
    assert result.feature() == {"a": [1, 2]}
    assert json.loads(to_json(result))["feature"] == {"a": [1, 2]}


def test_only_an_ok_result_has_a_feature() -> None:
    headers = [("job-id", b"7"), ("outcome", b"error"), ("source", b"s"), ("error-type", b"E"), ("error-message", b"m")]
    result = parse_result(key=None, value=b"\xc1", headers=headers, timestamp_ms=0)
    assert (result.feature(), result.error_type, result.error_message) == (None, "E", "m")
