"""Records of printed lines: read back the same, and anything else is a FormatError and nothing worse."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.errors import FormatError
from rayline.printed import MAX_RECORD_BYTES, PrintedLine, Printer, Stream, decode_printed, encode_printed

texts = st.text(st.characters(exclude_categories=["Cs"]))
printers = st.builds(Printer, texts, texts, texts, texts, texts, texts)
lines = st.builds(
    PrintedLine,
    st.integers(0, 2**62),
    st.sampled_from(Stream),
    texts,
    st.none() | texts,
    st.none() | texts,
    st.integers(0, 2**62),
)


@given(printers, st.lists(lines, max_size=5))
def test_what_is_written_is_read_back(printer: Printer, written: list[PrintedLine]) -> None:
    printed = decode_printed(encode_printed(printer, written))
    assert (printed.printer, list(printed.lines)) == (printer, written)


def test_lines_have_the_trace_of_their_batch_and_readers_of_lines_alone_find_them_as_before() -> None:
    traced = [PrintedLine(1, Stream.STDOUT, text, "b1", job, 0, "1a" * 16) for text, job in (("x", "j"), ("y", None))]
    others = [PrintedLine(1, Stream.STDOUT, "z", "b2"), PrintedLine(1, Stream.STDOUT, "nobody's")]
    value = encode_printed(Printer("c", "n", "a", "1", "x", "i"), [*traced, *others])
    assert list(decode_printed(value).lines) == [*traced, *others]
    raw = msgpack.unpackb(value)
    assert {len(row) for row in raw["lines"]} == {6}
    del raw["traces"]
    assert [line.trace_id for line in decode_printed(msgpack.packb(raw)).lines] == [None] * 4


@pytest.mark.parametrize("trace", ["\x1b[2J", "1a", 7, None])
def test_what_is_no_trace_is_not_shown_as_one(trace: object) -> None:
    value = msgpack.unpackb(encode_printed(Printer("c", "n", "a", "1", "x", "i"), [PrintedLine(1, Stream.STDOUT, "t", "b")]))
    assert [line.trace_id for line in decode_printed(msgpack.packb({**value, "traces": {"b": trace}})).lines] == [None]


@given(st.binary(max_size=300))
def test_other_bytes_are_a_format_error(value: bytes) -> None:
    with pytest.raises(FormatError):
        decode_printed(value)


@pytest.mark.parametrize(
    "line", [[1, "stdout", "x", None, None], ["1", "stdout", "x", None, None, 0], [1, "nowhere", "x", None, None, 0], 7]
)
def test_a_line_that_is_none_is_a_format_error(line: object) -> None:
    value = msgpack.unpackb(encode_printed(Printer("c", "n", "a", "1", "x", "i"), []))
    with pytest.raises(FormatError):
        decode_printed(msgpack.packb({**value, "lines": [line]}))
    with pytest.raises(FormatError):
        decode_printed(msgpack.packb({**value, "v": 2}))
    with pytest.raises(FormatError):
        decode_printed(msgpack.packb({**value, "traces": []}))
    with pytest.raises(FormatError):
        decode_printed(b"\0" * (MAX_RECORD_BYTES + 1))
