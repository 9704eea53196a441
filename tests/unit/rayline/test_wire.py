"""The channel's heads and columns: read back the same, and anything else is a WireError and nothing worse."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgpack
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.errors import WireError
from rayline.jobs import ContentType, Job
from rayline.wire import (
    MAX_HEAD_BYTES,
    VERSION,
    AnswerHead,
    BatchHead,
    Hello,
    Verdict,
    binary_column,
    encode_request,
    number_column,
    pack_job_ids,
    unpack_job_ids,
)

HEADS: list[Any] = [Hello, BatchHead, AnswerHead]
milliseconds = st.floats(0, 1e9)
heads = st.one_of(
    st.builds(Hello, st.text(), st.text(), st.text()),
    st.builds(
        BatchHead,
        st.text(),
        st.sampled_from(ContentType),
        milliseconds,
        st.dictionaries(st.integers(0, 99), st.text(), max_size=3),
    ),
    st.builds(
        AnswerHead, st.text(), st.booleans(), st.sampled_from(Verdict), milliseconds, st.none() | st.text(), st.none() | st.text()
    ),
)


@given(heads)
def test_heads_read_back_the_same(head: Any) -> None:
    assert type(head).unpack(head.pack()) == head


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Hello("app", "1", "secret"))


@given(st.sampled_from(HEADS), st.binary(max_size=100))
def test_any_bytes_are_a_wire_error(kind: Any, data: bytes) -> None:
    with pytest.raises(WireError):
        kind.unpack(data)


@given(heads, st.data())
def test_a_head_with_a_wrong_value_is_a_wire_error_or_still_a_head(head: Any, data: st.DataObject) -> None:
    values = msgpack.unpackb(head.pack(), strict_map_key=False)
    name = data.draw(st.sampled_from(sorted(values)))
    values[name] = data.draw(
        st.one_of(st.none(), st.integers(-9, 9), st.text(), st.lists(st.integers(-9, 9)), st.just(float("nan")))
    )
    try:
        read = type(head).unpack(msgpack.packb(values))
    except WireError:
        return
    if isinstance(read, AnswerHead):
        assert isinstance(read.verdict, Verdict)
        assert b"%.1f" % read.execute_ms


def test_another_version_and_an_endless_head_are_refused() -> None:
    with pytest.raises(WireError, match=str(VERSION)):
        Hello.unpack(msgpack.packb({"v": VERSION + 1, "app": "a", "version": "1", "token": "t"}))
    with pytest.raises(WireError, match=str(MAX_HEAD_BYTES)):
        Hello.unpack(bytes(MAX_HEAD_BYTES + 1))


@given(st.lists(st.none() | st.binary(max_size=40), max_size=40))
def test_columns_of_bytes_hold_what_they_were_given(values: list[bytes | None]) -> None:
    column = binary_column(values, pa.binary())
    column.validate(full=True)
    assert column.to_pylist() == values
    payloads = [value for value in values if value is not None]
    assert encode_request(payloads).column(0).to_pylist() == payloads


@given(st.lists(st.integers(-128, 127), max_size=40), st.sampled_from([pa.int8(), pa.int32()]))
def test_columns_of_numbers_hold_what_they_were_given(values: list[int], arrow_type: pa.DataType) -> None:
    column = number_column(values, arrow_type)
    column.validate(full=True)
    assert column.to_pylist() == values


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.none() | st.text(st.characters(exclude_categories=["Cs"]))
        ),
        max_size=20,
    )
)
def test_the_ids_of_a_batchs_jobs_are_those_that_results_have(jobs: list[tuple[int, int, str | None]]) -> None:
    made = [
        Job("t", partition, offset, 0, None, b"", (), given, ContentType.MSGPACK, 0.0, 0.0) for partition, offset, given in jobs
    ]
    assert unpack_job_ids(pack_job_ids(made)) == [job.job_id for job in made]


def test_ids_that_would_fill_the_head_are_left_out() -> None:
    long_names = [Job("t", 0, n, 0, None, b"", (), f"{n:0128d}", ContentType.MSGPACK, 0.0, 0.0) for n in range(2_000)]
    head = BatchHead("b", ContentType.MSGPACK, 1.0, jobs=pack_job_ids(long_names))
    assert unpack_job_ids(BatchHead.unpack(head.pack()).jobs) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_job_ids_or_a_wire_error(data: bytes) -> None:
    try:
        assert all(isinstance(name, str) for name in unpack_job_ids(data))
    except WireError:
        assert data


def test_a_batch_is_made_of_plain_values_alone_and_nothing_that_sends_it_knows_ray() -> None:
    """No object of one Ray cluster can be referred to from another: there is no way to say it."""
    plain = {str, int, float, bool, bytes, type(None)}
    for head in HEADS:
        for name, hint in get_type_hints(head).items():
            for part in _parts(hint):
                assert part in plain or issubclass(part, (str, int)), f"{head.__name__}.{name}: {part}"
    column = encode_request([b"payload"]).schema.field(0).type
    assert column == pa.binary()
    root = Path(__file__).parents[3]
    for package in ("rayline", "scheduler", "ingest"):
        for module in (root / package).rglob("*.py"):
            tree = ast.parse(module.read_text(encoding="utf-8"))
            named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            named += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
            assert "ray" not in {name.partition(".")[0] for name in named}, module


def _parts(hint: Any) -> list[type]:
    """The types that a hint is made of."""
    inner = [part for argument in get_args(hint) for part in _parts(argument)]
    return inner or [hint]
