"""Lanes on the real broker with actors that are not there: a fake channel answers, so that all else is the real thing.

`python -m tests.integration.ingest.lanes APP INSTANCE [PHASE SIGNAL AT]` runs one lane as a process of its own until SIGTERM;
with a phase it sends itself SIGNAL there, in transaction number AT. It prints READY, and exits as `rayline lane` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import msgpack
import psutil
import pyarrow as pa
import tenacity

from deploy.checker import Report, check
from ingest.lane import Lane
from ingest.lane_process import EXIT_FENCED
from rayline.app_spec import AppSpec, Batching
from rayline.bus import KafkaSettings, Phase, ensure_topics
from rayline.codec import decode_payload
from rayline.errors import FormatError, ProducerFenced
from rayline.jobs import ContentType
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.topics import app_topics, platform_topics, requests_topic
from rayline.wire import ANSWER_SCHEMA, AnswerHead, BatchHead, JobStatus, Verdict
from tests.support.foreign import produce
from tests.support.names import fresh
from workers.channel import OnChunk

PARTITIONS = 8
SESSION_MS = 6_000


class EchoChannel:
    """An actor that answers with the payload, or says that it cannot be decoded. `{"grow": n}` asks for n bytes."""

    slots = 4

    def __init__(self, endpoint: ActorEndpoint) -> None:
        self.endpoint = endpoint

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        await asyncio.sleep(0)
        statuses: list[int] = []
        values: list[bytes | None] = []
        errors: list[str | None] = []
        for payload in batch.column(0).to_pylist():
            value, error = _feature(payload, head.content_type)
            statuses.append(JobStatus.OK if error is None else JobStatus.INVALID)
            values.append(value)
            errors.append(error)
        final = AnswerHead(head.batch, True, Verdict.DONE, 1.0)
        on_chunk(answer(list(range(len(values))), statuses, values, errors), final)
        return final

    def close(self) -> None:
        pass


class SilentChannel(EchoChannel):
    """An actor that takes every batch and never says a word."""

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await asyncio.Event().wait()
        return AnswerHead(head.batch, True, Verdict.TIMEOUT, reason="silence")


def _feature(payload: bytes, content_type: ContentType) -> tuple[bytes | None, str | None]:
    try:
        value = decode_payload(payload, content_type)
    except FormatError as error:
        return None, str(error)
    if isinstance(value, dict) and "grow" in value:
        return msgpack.packb(bytes(value["grow"])), None
    return payload, None


def answer(
    indexes: list[int], statuses: list[int], values: list[bytes | None], errors: list[str | None] | None = None
) -> pa.RecordBatch:
    """One answer as an actor sends it; an error's type is `Broken`."""
    errors = errors or [None] * len(indexes)
    types = [None if error is None else "Broken" for error in errors]
    return pa.RecordBatch.from_pydict(
        {"index": indexes, "status": statuses, "value": values, "error_type": types, "error_message": errors},
        schema=ANSWER_SCHEMA,
    )


def beat(app: str, seq: int, actors: int = 2) -> list[NodeReport]:
    """What a gateway says each second of one node with so many actors."""
    endpoints = tuple(ActorEndpoint(app, "1", f"a{i}", "127.0.0.1", 1, EchoChannel.slots, f"{app}-{i}") for i in range(actors))
    return [NodeReport("c", "n", 1, seq, NodeState.READY, 1.0, actors=endpoints)]


def spec_of(app: str, **fields: object) -> AppSpec:
    given = {"batching": Batching(max_jobs=64, linger_ms=5.0), "partitions": PARTITIONS, "sla_seconds": 60.0, **fields}
    return AppSpec(app, "1", "/nowhere", "m:f", **given)  # type: ignore[arg-type]


async def new_app(settings: KafkaSettings, *, partitions: int = PARTITIONS, **topic_fields: int) -> str:
    """Topics of an app that no other test uses."""
    app = fresh("lane")
    specs = [*platform_topics(), *app_topics(app, partitions=partitions, **topic_fields)]
    await ensure_topics(settings, [replace(spec, replication_factor=1) for spec in specs])
    return app


def submit(settings: KafkaSettings, app: str, count: int, *, first: int = 0, partitions: int = PARTITIONS) -> None:
    payloads = (msgpack.packb({"n": first + number}) for number in range(count))
    produce(settings, requests_topic(app), payloads, partitions=partitions)


@asynccontextmanager
async def running(lane: Lane, app: str, *, beats: bool = True) -> AsyncIterator[asyncio.Event]:
    """The lane at work, hearing of its actors; stopped in order at the end. Yields the event that stops it early."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(lane.run(stop, ready.set))
    beating = asyncio.create_task(_beat(lane, app)) if beats else None
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({waiting, task}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        assert ready.is_set(), "no takeover within 30 s"
        yield stop
    finally:
        stop.set()
        try:
            await task
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.wait({beating})


async def _beat(lane: Lane, app: str) -> None:
    seq = 0
    while True:
        seq += 1
        lane.heard(beat(app, seq))
        await asyncio.sleep(0.5)


async def until(condition: Callable[[], bool], *, seconds: float = 30.0, what: str = "") -> None:
    """Wait for something that nobody announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


async def verdict(settings: KafkaSettings, app: str, jobs: int, *, seconds: float = 40.0) -> Report:
    """What a foreign read_committed reader finds once each of so many jobs has a result, or when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        report = await asyncio.to_thread(check, settings.bootstrap_servers, app=app, sla_seconds=60)
        if (report.jobs >= jobs and not report.lost) or time.monotonic() > deadline:
            return report
        await asyncio.sleep(0.2)


def on_this_machine(seconds: float) -> float:
    """A bound that holds where every process gets a core, stretched by how many share one now."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def assert_exactly_once(report: Report, jobs: int) -> None:
    assert (report.jobs, report.results, report.lost, report.duplicated) == (jobs, jobs, 0, 0), str(report)
    assert report.exactly_once, str(report)


class LaneProcess:
    """One lane in a process of its own, by default in good health."""

    def __init__(
        self,
        settings: KafkaSettings,
        app: str,
        instance: str,
        *,
        phase: Phase | None = None,
        number: signal.Signals = signal.SIGKILL,
        at: int = 3,
    ) -> None:
        fault = [phase.value, str(int(number)), str(at)] if phase is not None else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.ingest.lanes", app, instance, *fault],
            env={**os.environ, **settings.to_env()},
            stdout=subprocess.PIPE,
        )

    async def ready(self) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(40):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line == b"READY\n", line

    async def exit_code(self, seconds: float = 40.0) -> int:
        return await asyncio.to_thread(self.process.wait, seconds)

    async def frozen(self) -> None:
        """Until it has stopped itself."""
        async for attempt in tenacity.AsyncRetrying(wait=tenacity.wait_fixed(0.02), stop=tenacity.stop_after_delay(40)):
            with attempt:
                assert psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> float:
        """SIGTERM; returns the seconds until it was gone."""
        began = time.monotonic()
        self.process.terminate()
        assert await self.exit_code() == 0
        return time.monotonic() - began

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@asynccontextmanager
async def lane_processes(settings: KafkaSettings, app: str) -> AsyncIterator[Callable[..., LaneProcess]]:
    """Start lanes as processes; whatever is left of them ends here."""
    started: list[LaneProcess] = []

    def start(instance: str, **fault: object) -> LaneProcess:
        started.append(LaneProcess(settings, app, instance, **fault))  # type: ignore[arg-type]
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.end()


async def _main(app: str, instance: str, phase: str = "", number: str = "", at: str = "") -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    seen = 0

    def on_phase(reached: Phase) -> None:
        nonlocal seen
        if reached == phase:
            seen += 1
            if seen == int(at):
                os.kill(os.getpid(), int(number))

    lane = Lane(
        settings=KafkaSettings.from_env(os.environ),
        spec=spec_of(app),
        instance=instance,
        channels=EchoChannel,
        result_partitions=PARTITIONS,
        session_timeout_ms=SESSION_MS,
        on_phase=on_phase,
    )
    beating = asyncio.create_task(_beat(lane, app))
    try:
        await lane.run(stop, lambda: print("READY", flush=True))  # noqa: T201 - the test reads it
    finally:
        beating.cancel()


def main() -> int:
    exit_code = 0
    try:
        asyncio.run(_main(*sys.argv[1:]))
    except* ProducerFenced:
        exit_code = EXIT_FENCED
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
