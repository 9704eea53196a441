"""Log lines: one a record, without secrets, with the trace that they belong to."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from rayline.errors import ConfigError
from rayline.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, LineHandler, holds_secret, lines_logged, open_logs, redact

log = logging.getLogger("rayline.test")


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if isinstance(handler, LineHandler)]:
        root.removeHandler(handler)


def opened(**environment: str) -> io.StringIO:
    stream = io.StringIO()
    open_logs({LEVEL_VARIABLE: "INFO", **environment}, process="lane/ocr/0", stream=stream)
    return stream


@pytest.mark.parametrize(
    ("text", "kept", "hidden"),
    [
        ("cannot reach kafka://user:hunter2@broker:9092/x", "broker:9092", "hunter2"),
        ("sasl_plain_password=hunter2 user=me", "user=me", "hunter2"),
        ("{'sasl.password': 'hunter2', 'a': 1}", "'a': 1", "hunter2"),
        ('{"token": "hunter2"}', "token", "hunter2"),
        ("RAYLINE_CHANNEL_TOKEN=hunter2", "RAYLINE_CHANNEL_TOKEN", "hunter2"),
        ("Authorization: Bearer abc.def-ghi", "Authorization", "abc.def-ghi"),
        ("aws_secret_access_key: hunter2", "aws_secret_access_key", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY----- x", " x", "hunter2"),
        ("api-key: hunter2;", "api-key", "hunter2"),
        ("{b'sasl.password': b'hunter2', b'a': 1}", "b'a': 1", "hunter2"),
        (r'{"password": "one\"hunter2", "a": 1}', '"a": 1', "hunter2"),
        ("python -m app --auth-token hunter2 --verbose", "--verbose", "hunter2"),
        ("Authorization: Token hunter2hunter2", "Authorization", "hunter2hunter2"),
        ("{'authorization': b'Bearer hunter2hunter2'}", "authorization", "hunter2hunter2"),
        ("Cookie: a=b; rayline_session=hunter2\nHost: x", "Host: x", "hunter2"),
        ("GET https://store/blob?x=1&sig=hunter2&y=2", "y=2", "hunter2"),
        ("GET https://store/blob?X-Amz-Signature=hunter2&y=2", "y=2", "hunter2"),
        ("cloning with ghp_0123456789abcdefghijklmnop now", " now", "ghp_0123456789"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.c2lnbmF0dXJl back", " back", "c2lnbmF0dXJl"),
    ],
)
def test_secrets_are_hidden_and_the_rest_is_kept(text: str, kept: str, hidden: str) -> None:
    assert kept in redact(text)
    assert hidden not in redact(text)


@pytest.mark.parametrize(
    "text", ["took over 8 partition(s) in 0.3 s", "http://host:8080/path", "a token ring", "99 jobs", "--password", "a cookie"]
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_a_record_is_one_line_whatever_it_says(text: str) -> None:
    for form in ("text", "json"):
        stream = opened(**{FORMAT_VARIABLE: form})
        log.warning("%s", text)
        assert len(stream.getvalue().splitlines()) == 1 or form == "json"
        assert stream.getvalue().count("\n") == 1


def test_an_exception_is_part_of_its_line() -> None:
    stream = opened()
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        log.exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "it failed" in line
    assert "ValueError" in line
    assert "hunter2" not in line


def test_json_lines_name_their_process_and_their_trace() -> None:
    stream = opened(**{FORMAT_VARIABLE: "json"})
    with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
        log.warning("inside")
    log.warning("outside")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert inside["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert inside["process"] == "lane/ocr/0"
    assert inside["level"] == "WARNING"
    assert "trace_id" not in outside


def test_lines_are_counted_by_level_and_a_changed_level_counts_at_once() -> None:
    opened()
    log.info("one")
    log.warning("two")
    logging.getLogger().setLevel("ERROR")
    log.warning("not written")
    assert lines_logged() == {"info": 1, "warning": 1}


def test_a_long_message_is_cut() -> None:
    stream = opened()
    log.warning("%s", "x" * 10**6)
    assert len(stream.getvalue()) < 20_000


@pytest.mark.parametrize(("name", "value"), [(LEVEL_VARIABLE, "LOUD"), (FORMAT_VARIABLE, "xml")])
def test_what_there_is_not_is_refused_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        open_logs({name: value})


def test_opening_again_does_not_write_lines_twice() -> None:
    opened()
    stream = opened()
    log.warning("once")
    assert stream.getvalue().count("once") == 1


@pytest.mark.parametrize(
    "text",
    [
        "token" + "a" * 8_000,
        "token" * 1_600,
        "a" * 8_000 + " http://u@x",
        "token a://b:" * 700 + "@ x",
        "--token" * 1_600,
        "--" + "-" * 8_000 + "token x",
        "password='" + "\\" * 8_000,
        "eyJ" * 3_000 + ".",
        "cookie" * 1_600,
    ],
)
def test_a_hostile_line_takes_no_time_to_speak_of(text: str) -> None:
    begun = time.process_time()
    redact(text)
    assert time.process_time() - begun < 2  # it took 43 s


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DB_PASSWORD", "correct horse", True),
        ("HF_TOKEN", "hf_abcdefgh", True),
        ("HF_TOKEN", "short", False),
        ("RAY_AUTH_TOKEN_PATH", "/run/token", False),
        ("HOME", "somewhere/else", False),
    ],
)
def test_a_variables_name_tells_whether_its_value_is_secret(name: str, value: str, secret: bool) -> None:
    assert holds_secret(name, value) is secret
