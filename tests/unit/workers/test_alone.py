"""Suspect batches at the actor's port: nothing runs beside them, their begin is told; one given up frees its place."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable

import msgpack
import pytest

from rayline.app_spec import Call
from rayline.jobs import ContentType
from rayline.wire import WHOLE_BATCH, AnswerHead, BatchHead, Verdict, encode_request
from tests.unit.workers.test_channel import channel_to
from workers.channel import FlightChannel
from workers.feature_server import FeatureServer

# A server whose function ends its process without a word: by itself, by a signal, in native code.
DEADLY = """
import ctypes, os, signal, sys, time
from rayline.app_spec import AppSpec
from workers.app_versions import AppVersions, Served
from workers.executor import Executor
from workers.feature_server import FeatureServer
from workers.loading import LoadedApp

WAYS = {
    "exit": lambda: os._exit(1),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
}
spec = AppSpec(name="app", version="v1", root="/", entrypoint="m:f")
executor = Executor(versions=AppVersions(served=Served(LoadedApp(lambda way: WAYS[way](), False, "m1"), 0, "m1")), spec=spec)
server = FeatureServer(spec=spec, executor=executor, host="127.0.0.1", token="t", max_waiting=4)
print(server.port, flush=True)
server.wait()
"""


async def send(
    channel: FlightChannel, payload: object, *, alone: bool = True, chunks: list[tuple[int, AnswerHead]] | None = None
) -> AnswerHead:
    seen = [] if chunks is None else chunks
    return await channel.exchange(
        encode_request([msgpack.packb(payload)]),
        BatchHead("b", ContentType.MSGPACK, 20_000, alone=alone),
        timeout_seconds=20,
        on_chunk=lambda answer, head: seen.append((answer.num_rows, head)),
    )


@pytest.mark.parametrize("way", ["exit", "kill", "segfault"])
async def test_the_begin_of_a_suspect_batch_is_told_however_its_process_ends(way: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DEADLY, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        channel = channel_to(int(await process.stdout.readline()))
        chunks: list[tuple[int, AnswerHead]] = []
        head = await send(channel, way, chunks=chunks)
        channel.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert head.verdict is Verdict.LOST
    assert [(rows, told.final) for rows, told in chunks] == [(0, False)]


@pytest.mark.parametrize("call", [Call.JOB, Call.BATCH])
async def test_jobs_that_run_one_by_one_are_announced_each_with_all_before_it_answered(
    serve: Callable[..., FeatureServer], call: Call
) -> None:
    channel = channel_to(serve(lambda payload: payload, call=call).port)
    chunks: list[tuple[int, AnswerHead]] = []
    await channel.exchange(
        encode_request([msgpack.packb(number) for number in range(3)]),
        BatchHead("b", ContentType.MSGPACK, 20_000, alone=True),
        timeout_seconds=20,
        on_chunk=lambda answer, head: chunks.append((answer.num_rows, head)),
    )
    channel.close()
    told = [(rows, head.begins) for rows, head in chunks]
    assert told == ([(0, 0), (1, 1), (1, 2), (1, None)] if call is Call.JOB else [(0, WHOLE_BATCH), (3, None)])


async def test_nothing_runs_beside_a_suspect_batch(serve: Callable[..., FeatureServer]) -> None:
    inside, release = threading.Event(), threading.Event()

    def hold(payload: str) -> str:
        inside.set()
        assert release.wait(20)
        return payload

    channel = channel_to(serve(hold, concurrency=2).port, slots=3)
    first = asyncio.create_task(send(channel, "suspect"))
    assert await asyncio.to_thread(inside.wait, 20)
    assert (await send(channel, "other", alone=False)).verdict is Verdict.BUSY
    assert (await send(channel, "another suspect")).verdict is Verdict.BUSY
    release.set()
    assert (await first).verdict is Verdict.DONE
    assert (await send(channel, "other", alone=False)).verdict is Verdict.DONE
    channel.close()


async def test_a_batch_that_is_given_up_ends_at_the_next_job_and_frees_its_place(serve: Callable[..., FeatureServer]) -> None:
    ran: list[int] = []
    begun, release = threading.Event(), threading.Event()

    def work(payload: int) -> int:
        ran.append(payload)
        if payload == 0:
            begun.set()
            assert release.wait(20)
        return payload

    server = serve(work)
    channel = channel_to(server.port)
    given_up = asyncio.create_task(
        channel.exchange(
            encode_request([msgpack.packb(number) for number in range(50)]),
            BatchHead("b", ContentType.MSGPACK, 20_000),
            timeout_seconds=20,
            on_chunk=lambda *_: None,
        )
    )
    assert await asyncio.to_thread(begun.wait, 20)
    (exchange,) = server.exchanges
    given_up.cancel()
    await asyncio.wait({given_up})
    while not exchange.run.draining:  # noqa: ASYNC110 - set by the server's own thread
        await asyncio.sleep(0.01)
    release.set()
    assert (await send(channel, 99, alone=False)).verdict is Verdict.DONE
    assert ran == [0, 99]
    channel.close()
