"""Which traces are taken is decided by a few bytes, as OpenTelemetry's own sampler does; spans are written as it writes them."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import Span, Status, StatusCode

from rayline.spans import MAX_PARTS
from rayline.telemetry import Tracing, span_line

_SPAN: Final = "b7ad6b7169203331"
_LOWER: Final = 1 << 64


def traceparent_of(trace_id: int) -> bytes:
    return f"00-{trace_id:032x}-{_SPAN}-01".encode()


@given(trace_id=st.integers(1, (1 << 128) - 1), share=st.sampled_from([0.0, 0.001, 0.01, 0.3, 0.5, 0.999, 1.0]))
def test_a_trace_is_taken_where_opentelemetry_would_take_it(trace_id: int, share: float) -> None:
    tracing = Tracing()
    tracing.set_sampling(share)
    expected = TraceIdRatioBased(share).should_sample(None, trace_id, "x").decision is Decision.RECORD_AND_SAMPLE
    assert tracing.may_take(traceparent_of(trace_id)) == expected
    assert (tracing.start("x", traceparent_of(trace_id)) is not None) == expected


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_the_bound_itself_is_not_taken(share: float) -> None:
    tracing, bound = Tracing(), round(share * _LOWER)
    tracing.set_sampling(share)
    assert tracing.may_take(traceparent_of(bound - 1))
    assert not tracing.may_take(traceparent_of(bound))


@pytest.mark.parametrize("malformed", [b"", b"00", b"00-xyz-1-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"\xff" * 55])
def test_what_is_no_traceparent_is_no_trace(malformed: bytes) -> None:
    assert Tracing().start("x", malformed) is None


class Kept(SimpleSpanProcessor):
    """Where spans go when they end."""

    def __init__(self) -> None:
        super().__init__(InMemorySpanExporter())
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def test_a_line_is_what_opentelemetry_would_write() -> None:
    kept = Kept()
    tracing = Tracing(kept, resource=Resource.create({"service.name": "rayline-lane"}))
    other = tracing.start("other", traceparent_of(7))
    assert other is not None
    span = tracing.start("job", traceparent_of(1 << 100), start_ns=10**18, links=[other], app="a", named={"n": ["x", "y"]})
    assert span is not None
    span.add_event("dispatched", {"to": "c1"}, timestamp=10**18 + 1_234_000)
    span.set_status(StatusCode.ERROR, 'it "broke"')
    provider = TracerProvider()
    provider.add_span_processor(kept)
    for one in (span, provider.get_tracer("t").start_span("root")):
        one.end(10**18 + 5)
    assert len(kept.spans) == 2
    for told in kept.spans:
        line = span_line(told, told.resource.to_json(indent=None))
        assert "\n" not in line
        assert json.loads(line) == json.loads(told.to_json())


def with_everything(span: Span) -> None:
    """What an app's function may do with the span in which it runs."""
    span.set_attributes({"text": "x", "number": 1.5, "flag": True, "list": ["a", "b"]})
    span.set_attribute("text", "y")
    span.add_event("step", {"size": 3}, timestamp=10**18 + 1)
    span.add_event("bare")
    span.set_status(Status(StatusCode.ERROR, "why"))
    span.update_name("renamed")
    try:
        raise ValueError("no")
    except ValueError as error:
        span.record_exception(error, {"more": 1}, timestamp=10**18 + 2)
    span.end(10**18 + 9)


def told(span: ReadableSpan) -> dict[str, Any]:
    """What does not depend on ids and clocks."""
    found: dict[str, Any] = json.loads(span.to_json())
    for event in found["events"]:
        event.pop("timestamp")
    return {name: found[name] for name in ("name", "kind", "status", "attributes", "events", "links", "start_time", "end_time")}


def test_a_span_says_what_the_sdks_own_would() -> None:
    kept, provider = Kept(), TracerProvider()
    provider.add_span_processor(kept)
    ours = Tracing(kept).start("x", traceparent_of(5), start_ns=10**18, app="a")
    assert ours is not None
    with_everything(ours)
    with_everything(provider.get_tracer("t").start_span("x", start_time=10**18, attributes={"rayline.app": "a"}))
    assert told(kept.spans[0]) == told(kept.spans[1])
    context, parent = kept.spans[0].context, kept.spans[0].parent
    assert (context.trace_id, parent.trace_id, f"{parent.span_id:016x}") == (5, 5, _SPAN)
    assert context.trace_flags.sampled


def test_a_function_can_neither_break_a_span_nor_fill_memory_with_it() -> None:
    kept = Kept()
    span = Tracing(kept).start("x", traceparent_of(5))
    assert span is not None
    span.set_attribute("object", object())
    span.set_attributes({f"a{number}": number for number in range(1000)})
    for number in range(1000):
        span.add_event(f"e{number}", {"object": object()})
        span.add_link(span.get_span_context())
    assert span.is_recording()
    span.end()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.end()
    (one,) = kept.spans
    assert not span.is_recording()
    assert (len(one.attributes or {}), len(one.events), len(one.links)) == (MAX_PARTS,) * 3
    json.loads(span_line(one, "{}"))
