"""What is kept of a line is text on one line, whatever was printed, and shows no secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.output.cleaning import clean_line, clean_traceback


@given(st.binary(max_size=200))
def test_any_bytes_become_printable_text_on_one_line(raw: bytes) -> None:
    text = clean_line(raw)
    assert text.isprintable()
    text.encode()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Grüße 日本".encode(), "Grüße 日本"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"a\0b", "a\\x00b"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"a\tb", "a       b"),
        (b"api_key=abcdef", "api_key=***"),
        (b"the value is hunter22!", "the value is ***!"),
    ],
)
def test_a_line_is_cleaned(raw: bytes, text: str) -> None:
    assert clean_line(raw, ("hunter22",)) == text


def test_a_traceback_keeps_its_lines() -> None:
    raw = b'Traceback:\n  File "a.py"\n    \x1b[2Jx\nValueError: token=abcdefgh'
    assert clean_traceback(raw) == 'Traceback:\n  File "a.py"\n    \\x1b[2Jx\nValueError: token=***'
