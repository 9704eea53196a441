"""The actor's own span: a child of whatever the head of the batch names, and of nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rayline.app_spec import Call
from rayline.jobs import ContentType
from rayline.logs import LineFormatter, LineHandler, LogFormat
from rayline.telemetry import Tracing
from rayline.wire import BatchHead, encode_request
from tests.unit.workers.test_channel import channel_to
from workers import app_loop
from workers.feature_server import FeatureServer

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.mark.parametrize("trace", [{}, {3: PARENT}], ids=["unsampled", "sampled"])
async def test_the_execution_is_a_child_of_the_attempt(serve: Callable[..., FeatureServer], trace: dict[int, str]) -> None:
    exporter = InMemorySpanExporter()
    channel = channel_to(serve(lambda payload: payload, tracing=Tracing(SimpleSpanProcessor(exporter))).port)
    head = BatchHead("b-1", ContentType.MSGPACK, 20_000, trace)
    await channel.exchange(encode_request([msgpack.packb(1)]), head, timeout_seconds=20, on_chunk=lambda *_: None)
    channel.close()
    spans = exporter.get_finished_spans()
    assert len(spans) == len(trace)
    for span in spans:
        assert span.parent is not None
        assert (span.name, span.parent.span_id, span.parent.trace_id) == (
            "rayline.execute",
            int("cd" * 8, 16),
            int("ab" * 16, 16),
        )
        assert (span.attributes or {})["rayline.batch"] == "b-1"
        assert (span.attributes or {})["rayline.verdict"] == "done"


class Users:
    """A user's code with spans and log lines of its own, by all means that an app may choose."""

    def __init__(self, stream: io.StringIO) -> None:
        self.exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._tracer = provider.get_tracer("users")
        self._stream = stream

    def job(self, payload: int) -> int:
        with self._tracer.start_as_current_span("users"):
            logging.getLogger("users").warning("seen")
        if payload < 0:
            raise ValueError(payload)
        return payload

    async def awaited(self, payload: int) -> int:
        return self.job(payload)

    def batch(self, payloads: list[int]) -> list[int]:
        return [self.job(payload) for payload in payloads]

    async def awaited_batch(self, payloads: list[int]) -> list[int]:
        return self.batch(payloads)

    def spans(self) -> tuple[ReadableSpan, ...]:
        spans = self.exporter.get_finished_spans()
        self.exporter.clear()
        return spans

    def lines(self) -> list[dict[str, str]]:
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        self._stream.seek(0)
        self._stream.truncate()
        return lines


@pytest.fixture
def users() -> Iterator[Users]:
    handler = LineHandler(stream := io.StringIO())
    handler.setFormatter(LineFormatter(LogFormat.JSON))
    logging.getLogger("users").addHandler(handler)
    yield Users(stream)
    logging.getLogger("users").removeHandler(handler)


@pytest.mark.parametrize("name", ["job", "awaited", "batch", "awaited_batch"])
@pytest.mark.parametrize("loop", [app_loop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
async def test_what_the_function_logs_and_its_own_spans_belong_to_the_execution_and_to_no_later_batch(
    serve: Callable[..., FeatureServer], users: Users, monkeypatch: pytest.MonkeyPatch, name: str, loop: Any
) -> None:
    monkeypatch.setattr(app_loop, "new_event_loop", loop)
    exporter = InMemorySpanExporter()
    call = Call.BATCH if name.endswith("batch") else Call.JOB
    server = serve(getattr(users, name), tracing=Tracing(SimpleSpanProcessor(exporter)), call=call)
    channel = channel_to(server.port, slots=1)

    async def exchange(trace: dict[int, str]) -> None:
        head = BatchHead("b-1", ContentType.MSGPACK, 20_000, trace)
        request = encode_request([msgpack.packb(payload) for payload in (1, -1)])
        await channel.exchange(request, head, timeout_seconds=20, on_chunk=lambda *_: None)

    for trace in ({}, {0: PARENT}, {}, {0: PARENT.replace("-01", "-00")}, {0: "nonsense", 1: PARENT}, {}):
        await exchange(trace)
        executions = exporter.get_finished_spans()
        exporter.clear()
        spans, lines = users.spans(), users.lines()
        assert len(spans) == len(lines) >= 2
        if PARENT not in trace.values():
            assert executions == ()
            assert {span.parent for span in spans} == {None}
            continue
        (execution,) = executions
        assert {span.parent.span_id for span in spans if span.parent is not None} == {execution.context.span_id}
        assert {span.context.trace_id for span in spans} == {int("ab" * 16, 16)}
        assert {line["trace_id"] for line in lines} == {"ab" * 16}
        assert (execution.start_time or 0) <= min(span.start_time or 0 for span in spans)
        assert max(span.end_time or 0 for span in spans) <= (execution.end_time or 0)
    channel.close()
