"""Node reports: read back the same; whatever else stands in the topic is a FormatError."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.errors import FormatError
from rayline.reports import (
    MAX_REPORT_BYTES,
    ActorEndpoint,
    EnvironmentLoad,
    FactSeqs,
    ModelLoad,
    NodeLoad,
    NodeReport,
    NodeState,
    decode_reports,
    encode_reports,
)

words = st.text(max_size=8)
actors = st.builds(ActorEndpoint, words, words, words, words, st.integers(1, 65535), st.integers(1, 64), words)
environments = st.builds(
    EnvironmentLoad,
    words,
    words,
    words,
    st.none() | st.floats(0, 1),
    st.none() | words,
    st.none() | words,
    st.none() | st.floats(0, 300),
)
reports = st.builds(
    NodeReport,
    words,
    words,
    st.integers(0, 2**53),
    st.integers(0, 2**40),
    st.sampled_from(NodeState),
    st.none() | st.floats(0, 512),
    st.none() | words,
    st.none() | st.lists(actors, max_size=3).map(tuple),
    st.none() | words,
    st.booleans(),
    st.integers(0, 10_000),
    st.none()
    | st.builds(
        NodeLoad,
        cores=st.none() | st.floats(0, 64),
        jobs_in_flight=st.none() | st.integers(0, 99),
        environments=st.lists(environments, max_size=2).map(tuple),
        models=st.lists(
            st.builds(ModelLoad, words, st.integers(0, 2**40), st.integers(0, 2**40), st.none() | words), max_size=2
        ).map(tuple),
    ),
    st.none() | st.booleans(),
    st.integers(1, 10_000),
    st.none() | st.builds(FactSeqs, *[st.integers(-1, 2**40)] * 7),
)


@given(st.lists(reports, max_size=4))
def test_reports_read_back_the_same(given_reports: list[NodeReport]) -> None:
    assert decode_reports(encode_reports(given_reports)) == given_reports


@given(st.binary(max_size=200))
def test_any_bytes_are_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_reports(data)


wrong = st.one_of(
    st.text(), st.lists(st.integers(-9, 9), max_size=2), st.sampled_from([float("nan"), float("inf"), -1.0, True, 99])
)


@given(reports.filter(lambda report: report.actors), st.data())
def test_a_report_with_a_wrong_value_never_gets_through_as_something_else(report: NodeReport, data: st.DataObject) -> None:
    content = msgpack.unpackb(encode_reports([report]))
    item: dict[str, Any] = content["nodes"][0]
    if data.draw(st.booleans()):
        item = item["actors"][0]
    name = data.draw(st.sampled_from(sorted(item)))
    item[name] = data.draw(wrong)
    try:
        (read,) = decode_reports(msgpack.packb(content))
    except FormatError:
        return
    assert read.cpus is None or 0 <= read.cpus < float("inf")
    for actor in read.actors or ():
        assert (type(actor.port), type(actor.slots), type(actor.instance)) == (int, int, str)


def test_another_version_and_an_endless_report_are_refused() -> None:
    with pytest.raises(FormatError, match="version 2"):
        decode_reports(msgpack.packb({"v": 2, "nodes": []}))
    with pytest.raises(FormatError, match="limit"):
        decode_reports(bytes(MAX_REPORT_BYTES + 1))
