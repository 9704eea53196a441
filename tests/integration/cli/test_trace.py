"""One trace spans the producer, the lane, the worker and the result."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import tenacity
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from deploy.local.state import StateFolder
from rayline import Client
from rayline.bus import KafkaSettings
from rayline.jobs import TRACEPARENT
from rayline.results import Outcome
from rayline.telemetry import traceparent_of
from tests.integration.cli.conftest import TRACES, Run

pytestmark = pytest.mark.integration

FLUSHED_SECONDS = 15.0


async def test_one_trace_spans_producer_lane_worker_and_result(platform: Run, folder: Path) -> None:
    settings = KafkaSettings.from_env(StateFolder(folder / ".rayline").read_kafka())
    producer = TracerProvider().get_tracer("test").start_span("produce")
    trace_id = format_trace_id(producer.get_span_context().trace_id)
    async with Client(settings) as client:
        submitted = await client.submit(
            "text-features", {"text": "follow me"}, headers=[(TRACEPARENT, traceparent_of(producer).encode())]
        )
        result = await client.result("text-features", submitted, timeout_seconds=30)
    assert result.outcome is Outcome.OK
    chain = ("rayline.job", "rayline.batch", "rayline.attempt", "rayline.execute")
    spans = await _spans_of(folder / TRACES, trace_id, set(chain))
    job, batch, attempt, execute = (spans[name] for name in chain)
    assert job["parent_id"] == f"0x{format_span_id(producer.get_span_context().span_id)}"
    for child, parent in ((batch, job), (attempt, batch), (execute, attempt)):
        assert child["parent_id"] == parent["context"]["span_id"]
    assert attempt["attributes"]["rayline.verdict"] == "done"
    assert job["attributes"]["rayline.outcome"] == "ok"
    assert [event["name"] for event in job["events"]] == ["dispatched", "answered"]
    assert {job["resource"]["attributes"]["service.name"], execute["resource"]["attributes"]["service.name"]} == {
        "rayline-lane",
        "rayline-worker",
    }
    carried = dict(result.headers)[TRACEPARENT].decode()
    assert carried.split("-")[1:3] == [trace_id, job["context"]["span_id"].removeprefix("0x")]


async def test_a_job_that_its_producer_did_not_sample_leaves_no_span(platform: Run, folder: Path) -> None:
    settings = KafkaSettings.from_env(StateFolder(folder / ".rayline").read_kafka())
    silent, sampled = "ab" * 16, "cd" * 16
    async with Client(settings) as client:
        for trace_id, flags in ((silent, "00"), (sampled, "01")):
            header = (TRACEPARENT, f"00-{trace_id}-{'12' * 8}-{flags}".encode())
            submitted = await client.submit("text-features", {"text": "quiet"}, headers=[header])
            await client.result("text-features", submitted, timeout_seconds=30)
    await _spans_of(folder / TRACES, sampled, {"rayline.job", "rayline.execute"})
    assert silent not in (folder / TRACES).read_text()


async def _spans_of(path: Path, trace_id: str, names: set[str]) -> dict[str, Any]:
    """The spans of a trace by name, once all of these names are there: exporters write after a moment."""
    complete = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda found: not names <= found.keys()),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(FLUSHED_SECONDS),
    )
    found: dict[str, Any] = await complete(asyncio.to_thread, _read_spans, path, trace_id)
    return found


def _read_spans(path: Path, trace_id: str) -> dict[str, Any]:
    spans = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {span["name"]: span for span in spans if span["context"]["trace_id"] == f"0x{trace_id}"}
