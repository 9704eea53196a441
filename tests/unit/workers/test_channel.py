"""The channel against a peer that keeps to the protocol, and against peers that do not. Loopback, no Ray."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pyarrow as pa
import pytest
from pyarrow import flight

from rayline.app_spec import Limits
from rayline.jobs import ContentType
from rayline.reports import ActorEndpoint
from rayline.wire import ANSWER_SCHEMA, AnswerHead, BatchHead, Verdict, encode_request
from workers.channel import FlightChannel
from workers.feature_server import FeatureServer

HEAD = BatchHead("b", ContentType.MSGPACK, 20_000)


def endpoint(port: int, slots: int = 2) -> ActorEndpoint:
    return ActorEndpoint(app="app", version="v1", name="n", host="127.0.0.1", port=port, slots=slots, instance="i")


def channel_to(port: int, *, slots: int = 2, token: str = "t", version: str = "v1") -> FlightChannel:
    return FlightChannel(endpoint(port, slots), app="app", version=version, token=token)


async def exchange(channel: FlightChannel, *payloads: Any, timeout_seconds: float = 20) -> tuple[AnswerHead, dict[int, Any]]:
    values: dict[int, Any] = {}

    def note(answer: pa.RecordBatch, _: AnswerHead) -> None:
        assert threading.current_thread() is threading.main_thread()
        values.update({row["index"]: msgpack.unpackb(row["value"]) for row in answer.to_pylist() if row["value"] is not None})

    request = encode_request([msgpack.packb(payload) for payload in payloads])
    return await channel.exchange(request, HEAD, timeout_seconds=timeout_seconds, on_chunk=note), values


async def test_a_batch_goes_out_and_comes_back(serve: Callable[..., FeatureServer]) -> None:
    channel = channel_to(serve(lambda payload: payload + 1).port)
    for _ in range(3):
        head, values = await exchange(channel, 1, 2)
        assert (head.verdict, head.model_version, values) == (Verdict.DONE, "m1", {0: 2, 1: 3})
    channel.close()


async def test_no_more_batches_are_out_than_there_are_slots(serve: Callable[..., FeatureServer]) -> None:
    here, most, lock = 0, 0, threading.Lock()

    def count(payload: int) -> int:
        nonlocal here, most
        with lock:
            here += 1
            most = max(most, here)
        time.sleep(0.02)
        with lock:
            here -= 1
        return payload

    channel = channel_to(serve(count, concurrency=3).port, slots=2)
    answers = await asyncio.gather(*(exchange(channel, number) for number in range(8)))
    assert [values for _, values in answers] == [{0: number} for number in range(8)]
    assert most == 2
    channel.close()


async def test_calls_never_exceed_the_apps_concurrency(serve: Callable[..., FeatureServer]) -> None:
    here, most, lock = 0, 0, threading.Lock()

    def count(payload: int) -> int:
        nonlocal here, most
        with lock:
            here += 1
            most = max(most, here)
        time.sleep(0.02)
        with lock:
            here -= 1
        return payload

    channel = channel_to(serve(count, concurrency=1).port, slots=4)
    await asyncio.gather(*(exchange(channel, number) for number in range(4)))
    assert most == 1
    channel.close()


async def test_a_notice_answers_new_batches_draining(serve: Callable[..., FeatureServer]) -> None:
    server = serve(lambda payload: payload)
    channel = channel_to(server.port)
    server.drain(10)
    head, values = await exchange(channel, 1)
    assert (head.verdict, values) == (Verdict.DRAINING, {})
    channel.close()


async def test_a_batch_over_its_budget_is_answered_although_the_call_goes_on(serve: Callable[..., FeatureServer]) -> None:
    release = threading.Event()
    channel = channel_to(serve(lambda payload: payload or release.wait(10), limits=Limits(execute_seconds=60)).port)
    values: list[int] = []
    request = encode_request([msgpack.packb(1), msgpack.packb(0)])
    head = await channel.exchange(
        request,
        BatchHead("b", ContentType.MSGPACK, 200),
        timeout_seconds=10,
        on_chunk=lambda answer, _: values.extend(answer.column(0).to_pylist()),
    )
    assert (head.verdict, values) == (Verdict.TIMEOUT, [0])
    release.set()
    channel.close()


@pytest.mark.parametrize(("given", "reason"), [({"token": "x"}, "wrong token"), ({"version": "v2"}, "not app v2")])
async def test_a_stranger_is_refused(serve: Callable[..., FeatureServer], given: dict[str, str], reason: str) -> None:
    channel = channel_to(serve(lambda payload: payload).port, **given)  # type: ignore[arg-type]
    head, _ = await exchange(channel, 1)
    assert head.verdict is Verdict.LOST
    assert reason in (head.reason or "")
    channel.close()


async def test_nobody_listening_is_told_at_once() -> None:
    channel = channel_to(1)
    started = time.monotonic()
    head, _ = await exchange(channel, 1)
    assert head.verdict is Verdict.UNREACHED
    assert time.monotonic() - started < 1
    channel.close()


async def test_what_the_caller_raises_comes_out_of_the_exchange(serve: Callable[..., FeatureServer]) -> None:
    channel = channel_to(serve(lambda payload: payload).port)

    def fail(_: pa.RecordBatch, __: AnswerHead) -> None:
        raise KeyError("the lane's own")

    with pytest.raises(KeyError):
        await channel.exchange(encode_request([b"\x01"]), HEAD, timeout_seconds=10, on_chunk=fail)
    assert (await exchange(channel, 1))[1] == {0: 1}
    channel.close()


async def test_closing_concludes_what_is_out_and_refuses_what_comes(serve: Callable[..., FeatureServer]) -> None:
    release = threading.Event()
    channel = channel_to(serve(lambda _: release.wait(10)).port)
    out = asyncio.create_task(exchange(channel, 1))
    await asyncio.sleep(0)
    started = time.monotonic()
    channel.close()
    assert time.monotonic() - started < 0.1
    assert (await out)[0].verdict is Verdict.LOST
    assert (await exchange(channel, 1))[0].verdict is Verdict.LOST
    release.set()


class Peer(flight.FlightServerBase):
    """Answers every request with what it was given, or with nothing at all."""

    def __init__(self, answers: list[tuple[pa.RecordBatch, bytes]] | None) -> None:
        super().__init__(location="grpc://127.0.0.1:0")
        self._answers = answers
        self.released = threading.Event()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        reader.read_chunk()
        if self._answers is None:
            self.released.wait(20)
            return
        writer.begin(self._answers[0][0].schema)
        for answer, head in self._answers:
            writer.write_with_metadata(answer, head)


def answer(*rows: dict[str, Any], schema: pa.Schema = ANSWER_SCHEMA) -> pa.RecordBatch:
    whole = [{"value": None, "error_type": None, "error_message": None, "status": 0, **row} for row in rows]
    return pa.RecordBatch.from_pylist(whole, schema=schema)


FINAL = AnswerHead("b", True, Verdict.DONE).pack()
OK = {"index": 0, "value": b"\x01"}
OTHER_SCHEMA = pa.schema([pa.field("index", pa.int64())])


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([(answer({**OK, "index": 2}), FINAL)], "job 2 of 2"),
        ([(answer({**OK, "index": -1}), FINAL)], "job -1 of 2"),
        ([(answer(OK, OK), FINAL)], "answered before"),
        ([(answer(OK), FINAL)], "without an answer"),
        ([(answer({"index": 0}), FINAL)], "without a value"),
        ([(answer({**OK, "status": 1}), FINAL)], "without being ok"),
        ([(answer({**OK, "status": 9}), FINAL)], "unknown status"),
        ([(answer(OK), AnswerHead("other", True, Verdict.DONE).pack())], "batch 'other'"),
        ([(answer(OK), b"\xc1")], "not a message"),
        ([(answer(OK), b"")], "with a head"),
        ([(pa.RecordBatch.from_pylist([{"index": 0}], schema=OTHER_SCHEMA), FINAL)], "another schema"),
    ],
    ids=["beyond", "negative", "twice", "missing", "no value", "both", "status", "batch", "head", "no head", "schema"],
)
async def test_an_answer_outside_the_protocol_is_a_lost_batch(answers: list[tuple[pa.RecordBatch, bytes]], reason: str) -> None:
    with Peer(answers) as peer:
        channel = channel_to(peer.port)
        head, _ = await exchange(channel, 1, 2)
        assert head.verdict is Verdict.LOST
        assert reason in (head.reason or "")
        channel.close()


async def test_a_peer_that_ends_the_stream_early_is_a_lost_batch() -> None:
    with Peer([(answer(OK), AnswerHead("b", False, Verdict.DONE).pack())]) as peer:
        channel = channel_to(peer.port)
        head, values = await exchange(channel, 1, 2)
        assert (head.verdict, values) == (Verdict.LOST, {0: 1})
        channel.close()


async def test_a_silent_peer_runs_into_the_batchs_own_timer() -> None:
    with Peer(None) as peer:
        channel = channel_to(peer.port)
        started = time.monotonic()
        head, _ = await exchange(channel, 1, timeout_seconds=0.2)
        assert head.verdict is Verdict.TIMEOUT
        assert time.monotonic() - started < 1
        channel.close()
        peer.released.set()
