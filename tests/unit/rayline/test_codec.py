"""Payloads: one well-formed value or a FormatError, in both directions."""

from __future__ import annotations

import contextlib
import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.codec import decode_payload, encode_payload
from rayline.errors import FormatError
from rayline.jobs import ContentType

JSON, MSGPACK = ContentType.JSON, ContentType.MSGPACK
numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text())
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)), max_leaves=20
)


@given(values, st.sampled_from(list(ContentType)))
def test_plain_values_read_back_the_same(value: object, content_type: ContentType) -> None:
    assert decode_payload(encode_payload(value, content_type), content_type) == value


@given(st.binary(max_size=200), st.sampled_from(list(ContentType)))
def test_any_bytes_are_a_value_or_a_format_error(data: bytes, content_type: ContentType) -> None:
    with contextlib.suppress(FormatError):
        encode_payload(decode_payload(data, content_type), content_type)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"", MSGPACK),
        (b"\x01\x02", MSGPACK),
        (b"\xc1", MSGPACK),
        (msgpack.packb(msgpack.ExtType(3, b"x")), MSGPACK),
        (b"\x91" * 5_000, MSGPACK),
        (b"\xdd\xff\xff\xff\xff", MSGPACK),
        (b"\xa1\xff", MSGPACK),
        (b"", JSON),
        (b"NaN", JSON),
        (b"[Infinity]", JSON),
        (b"[" * 100_000, JSON),
        (b"\xff", JSON),
        (b"{} {}", JSON),
        (b"9" * 10_000, JSON),
    ],
)
def test_what_is_not_one_well_formed_value_is_refused(data: bytes, content_type: ContentType) -> None:
    with pytest.raises(FormatError):
        decode_payload(data, content_type)


@pytest.mark.parametrize("content_type", list(ContentType))
def test_numpy_features_become_numbers_and_lists(content_type: ContentType) -> None:
    feature = {"v": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int64(7), "s": frozenset({1})}
    expected = {"v": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "n": 7, "s": [1]}
    assert decode_payload(encode_payload(feature, content_type), content_type) == expected


@pytest.mark.parametrize(
    ("value", "content_type", "named"),
    [
        (object(), MSGPACK, "object"),
        (b"raw", JSON, "base64"),
        (math.nan, JSON, "JSON"),
        (2**70, MSGPACK, "encoded"),
        ({1: object()}, JSON, "object"),
    ],
)
def test_what_cannot_be_encoded_is_named(value: object, content_type: ContentType, named: str) -> None:
    with pytest.raises(FormatError, match=named):
        encode_payload(value, content_type)


def test_a_feature_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    for content_type in ContentType:
        with pytest.raises(FormatError):
            encode_payload(loop, content_type)
