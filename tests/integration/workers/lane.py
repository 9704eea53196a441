"""The lane's side of a channel, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgpack
import pyarrow as pa

from rayline.jobs import ContentType
from rayline.reports import ActorEndpoint
from rayline.wire import AnswerHead, BatchHead, JobStatus, encode_request
from tests.integration.workers.cluster_under_test import TOKEN
from workers.channel import FlightChannel


def request(payloads: Sequence[Any]) -> pa.RecordBatch:
    """Payloads (bytes as they are, everything else as msgpack) as one request."""
    values = [payload if isinstance(payload, bytes) else msgpack.packb(payload) for payload in payloads]
    return encode_request(values)


def open_channel(endpoint: ActorEndpoint) -> FlightChannel:
    return FlightChannel(endpoint, app=endpoint.app, version=endpoint.version, token=TOKEN)


class Answered:
    """What came back for one batch: `values` of ok jobs, `errors` as (status, type, message), both by position."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}
        self.errors: dict[int, tuple[JobStatus, str, str]] = {}
        self.chunks = 0
        self.head: AnswerHead | None = None
        self.first = asyncio.Event()

    def note(self, answer: pa.RecordBatch, _head: AnswerHead) -> None:
        self.chunks += 1
        self.first.set()
        for row in answer.to_pylist():
            if row["status"] == JobStatus.OK:
                self.values[row["index"]] = msgpack.unpackb(row["value"])
            else:
                self.errors[row["index"]] = (JobStatus(row["status"]), row["error_type"], row["error_message"])


async def send(channel: FlightChannel, payloads: Sequence[Any], *, timeout_seconds: float = 30) -> Answered:
    """Send one batch and wait for its end."""
    answered = Answered()
    await send_into(answered, channel, payloads, timeout_seconds=timeout_seconds)
    return answered


async def send_into(
    answered: Answered, channel: FlightChannel, payloads: Sequence[Any], *, budget_ms: float = 20_000, timeout_seconds: float = 30
) -> None:
    """The same, for a test that looks at the answers while the batch runs."""
    head = BatchHead("batch-1", ContentType.MSGPACK, budget_ms)
    answered.head = await channel.exchange(request(payloads), head, timeout_seconds=timeout_seconds, on_chunk=answered.note)
