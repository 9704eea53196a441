"""Which traces are taken is decided by a few bytes, as OpenTelemetry's own sampler does; spans are written as it writes them."""

from __future__ import annotations

import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from rayline.telemetry import Tracing, span_line

_SPAN: Final = "b7ad6b7169203331"
_LOWER: Final = 1 << 64


def traceparent_of(trace_id: int) -> bytes:
    return f"00-{trace_id:032x}-{_SPAN}-01".encode()


@given(trace_id=st.integers(1, (1 << 128) - 1), share=st.sampled_from([0.0, 0.001, 0.01, 0.3, 0.5, 0.999, 1.0]))
def test_a_trace_is_taken_where_opentelemetry_would_take_it(trace_id: int, share: float) -> None:
    tracing = Tracing(TracerProvider())
    tracing.set_sampling(share)
    expected = TraceIdRatioBased(share).should_sample(None, trace_id, "x").decision is Decision.RECORD_AND_SAMPLE
    assert tracing.may_take(traceparent_of(trace_id)) == expected
    assert (tracing.start("x", traceparent_of(trace_id)) is not None) == expected


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_the_bound_itself_is_not_taken(share: float) -> None:
    tracing, bound = Tracing(TracerProvider()), round(share * _LOWER)
    tracing.set_sampling(share)
    assert tracing.may_take(traceparent_of(bound - 1))
    assert not tracing.may_take(traceparent_of(bound))


@pytest.mark.parametrize("malformed", [b"", b"00", b"00-xyz-1-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"\xff" * 55])
def test_what_is_no_traceparent_is_no_trace(malformed: bytes) -> None:
    assert Tracing(TracerProvider()).start("x", malformed) is None


def test_a_line_is_what_opentelemetry_would_write() -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "rayline-lane"}))
    tracing = Tracing(provider)
    other = tracing.start("other", traceparent_of(7))
    assert other is not None
    span = tracing.start(
        "rayline.job", traceparent_of(1 << 100), start_ns=10**18, links=[other], app="a", named={"n": ["x", "y"]}
    )
    assert isinstance(span, ReadableSpan)
    span.add_event("dispatched", {"to": "c1"}, timestamp=10**18 + 1_234_000)
    span.set_status(StatusCode.ERROR, 'it "broke"')
    root = provider.get_tracer("t").start_span("root")
    for one in (span, root):
        one.end(10**18 + 5)
        assert isinstance(one, ReadableSpan)
        line = span_line(one, one.resource.to_json(indent=None))
        assert "\n" not in line
        assert json.loads(line) == json.loads(one.to_json())
