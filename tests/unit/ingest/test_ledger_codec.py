"""The ledger's text: whatever the pattern, it reads back the same, fits where it must, and damage is noticed."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import ledger_codec
from rayline.errors import FormatError

OWNER = "rayline.features.lane-17"


def offsets_of(bits: np.ndarray) -> np.ndarray:
    return np.flatnonzero(bits).astype(np.int64)


def round_trip(owner: str, published: np.ndarray) -> str:
    text = ledger_codec.encode(owner, published)
    read = ledger_codec.decode(text)
    assert read.owner == owner
    assert read.published.tolist() == published.tolist()
    return text


@given(st.text(max_size=60), st.sets(st.integers(0, 60_000), max_size=400))
def test_any_set_of_offsets_reads_back_the_same(owner: str, offsets: set[int]) -> None:
    round_trip(owner, np.array(sorted(offsets), dtype=np.int64))


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 3_000)), min_size=1, max_size=30))
def test_any_runs_read_back_the_same(runs: list[tuple[int, int]]) -> None:
    bits = np.concatenate([np.repeat(np.array([0, 1], dtype=np.uint8), run) for run in runs])
    round_trip(OWNER, offsets_of(bits))


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.2, 0.5, 0.8, 0.99, 0.9999])
def test_24000_offsets_at_any_density_fit(share: float) -> None:
    bits = (np.random.default_rng(int(share * 10_000)).random(24_000) < share).astype(np.uint8)
    bits[-1] = 1
    assert len(round_trip(OWNER, offsets_of(bits))) <= ledger_codec.MAX_CHARS


@pytest.mark.parametrize(("share", "span"), [(0.99, 160_000), (0.001, 1_000_000)])
def test_sparse_and_dense_patterns_cost_far_less_than_their_bitmap(share: float, span: int) -> None:
    bits = (np.random.default_rng(7).random(span) < share).astype(np.uint8)
    text = round_trip(OWNER, offsets_of(bits))
    assert len(text) <= ledger_codec.MAX_CHARS < span / 8


def test_no_metadata_is_an_empty_ledger_that_nobody_owns() -> None:
    read = ledger_codec.decode("")
    assert (read.owner, read.published.tolist()) == ("", [])


@given(st.data())
def test_a_damaged_text_is_never_taken_for_a_ledger(data: st.DataObject) -> None:
    bits = np.random.default_rng(3).integers(0, 2, 900).astype(np.uint8)
    raw = bytearray(base64.b64decode(ledger_codec.encode(OWNER, offsets_of(bits))))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        ledger_codec.decode(base64.b64encode(bytes(raw)).decode())


@given(st.integers(1, 200))
def test_a_text_cut_short_is_refused(cut: int) -> None:
    text = ledger_codec.encode(OWNER, np.arange(0, 2_000, 3, dtype=np.int64))
    with pytest.raises(FormatError):
        ledger_codec.decode(text[:-cut])


@given(st.text(min_size=1, max_size=100))
def test_text_of_another_program_is_a_format_error_and_nothing_else(text: str) -> None:
    with pytest.raises(FormatError):
        ledger_codec.decode(text)


@given(st.binary(min_size=1, max_size=100))
def test_bytes_of_another_program_are_a_format_error_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(FormatError):
        ledger_codec.decode(base64.b64encode(raw).decode())


def test_an_owner_too_long_to_be_named_is_refused() -> None:
    with pytest.raises(FormatError, match="owner"):
        ledger_codec.encode("ä" * 128, np.empty(0, dtype=np.int64))


@given(st.sets(st.integers(0, 30_000), max_size=200), st.integers(0, 255))
def test_what_the_longest_owner_needs_is_foretold_exactly(offsets: set[int], length: int) -> None:
    published = np.array(sorted(offsets), dtype=np.int64)
    longest = ledger_codec.encode("x" * ledger_codec.MAX_OWNER_BYTES, published)
    owner = "y" * length
    assert ledger_codec.chars_under_any_owner(owner, ledger_codec.encode(owner, published)) == len(longest)
