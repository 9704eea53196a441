"""Records of suspects: what was written is read back, and nothing else is."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.errors import FormatError
from rayline.suspects import SuspectCase, Trial, WorkerDeath, decode_suspects, encode_suspects

_COUNTS = st.integers(0, 2**40)
_CASES = st.builds(
    SuspectCase,
    offsets=st.lists(_COUNTS, min_size=1, unique=True).map(tuple),
    suspects=_COUNTS,
    deaths=st.lists(st.builds(WorkerDeath, st.text(), _COUNTS, st.booleans())).map(tuple),
    trial=st.none() | st.builds(Trial, st.text(), _COUNTS, st.text(), _COUNTS),
)


@given(st.lists(_CASES, min_size=1))
def test_what_was_written_is_read_back(cases: list[SuspectCase]) -> None:
    assert decode_suspects(encode_suspects(cases)) == tuple(cases)


def test_nothing_suspected_is_a_tombstone() -> None:
    assert encode_suspects([]) is None
    assert decode_suspects(None) == ()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        msgpack.packb({"v": 2, "cases": []}),
        msgpack.packb({"v": 1}),
        msgpack.packb({"v": 1, "cases": [{"offsets": ["1"], "suspects": 1, "deaths": [], "trial": None}]}),
        msgpack.packb({"v": 1, "cases": [{"offsets": [-1], "suspects": 1, "deaths": [], "trial": None}]}),
        msgpack.packb({"v": 1, "cases": [{"offsets": [1], "suspects": True, "deaths": [], "trial": None}]}),
        msgpack.packb({"v": 1, "cases": [{"offsets": [1], "suspects": 1, "deaths": [], "trial": {"node": 1}}]}),
    ],
)
def test_anything_else_is_a_format_error(value: Any) -> None:
    with pytest.raises(FormatError):
        decode_suspects(value)
