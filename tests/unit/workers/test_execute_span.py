"""The actor's own span: a child of whatever the head of the batch names, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rayline.jobs import ContentType
from rayline.telemetry import Tracing
from rayline.wire import BatchHead, encode_request
from tests.unit.workers.test_channel import channel_to
from workers.feature_server import FeatureServer


@pytest.mark.parametrize("trace", [{}, {3: f"00-{'ab' * 16}-{'cd' * 8}-01"}], ids=["unsampled", "sampled"])
async def test_the_execution_is_a_child_of_the_attempt(serve: Callable[..., FeatureServer], trace: dict[int, str]) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    channel = channel_to(serve(lambda payload: payload, tracing=Tracing(provider)).port)
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
