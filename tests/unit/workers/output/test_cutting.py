"""Any bytes become lines of bounded size, and the same ones however they are cut into writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.output.cutting import LineCutter

pieces = st.lists(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\0", b"\xff"])).map(b"".join), max_size=8)


def cut(parts: list[bytes], max_bytes: int, most: int = 1_000) -> list[bytes]:
    cutter = LineCutter(max_bytes)
    lines = [line for part in parts for line in cutter.feed(part, most)[0]]
    last = cutter.end()
    assert cutter.empty
    return lines if last is None else [*lines, last]


@given(pieces, st.integers(1, 5))
def test_how_it_is_cut_into_writes_does_not_matter(parts: list[bytes], max_bytes: int) -> None:
    assert cut(parts, max_bytes) == cut([b"".join(parts)], max_bytes)


@given(pieces)
def test_without_carriage_returns_and_bounds_lines_are_what_splitting_gives(parts: list[bytes]) -> None:
    data = b"".join(parts).replace(b"\r", b"")
    *ended, rest = data.split(b"\n")
    assert cut([data], 1_000) == ended + ([rest] if rest else [])


@given(pieces, st.integers(0, 4))
def test_lines_beyond_the_limit_are_counted_and_the_next_write_begins_clean(parts: list[bytes], most: int) -> None:
    data = b"".join(parts)
    cutter = LineCutter(1_000)
    lines, skipped = cutter.feed(data, most)
    assert len(lines) <= most
    assert len(lines) + skipped == data.count(b"\n")
    rest = data[data.rfind(b"\n") + 1 :]
    cutter.feed(b"", 1)
    assert cutter.end() in (cut([rest], 1_000) or [None])


def test_a_long_line_is_cut_and_says_how_much_is_missing() -> None:
    assert cut([b"abcdef", b"ghi\nj"], 4) == ["abcd … (5 bytes more)".encode(), b"j"]


def test_of_a_progress_bar_only_its_last_state_is_kept() -> None:
    assert cut([b"\r 10%", b"\r 20%\r", b" 30%\r\n", b"done\n"], 80) == [b" 30%", b"done"]
