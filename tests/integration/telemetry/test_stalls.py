"""Each thing that can stand still, made to stand still on a real broker, and told as such."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import tenacity
from confluent_kafka import Producer

from deploy.broker import LocalKafka
from deploy.config_board import read_last_words
from deploy.process_health import ProcessHealth, read_health
from ingest import stalls
from ingest.lane import Lane
from ingest.open_transactions import name_producers
from rayline.bus import KafkaSettings, ensure_topics
from rayline.metrics import MetricsBoard, declared
from rayline.stalls import Stall, StallKind
from rayline.topics import platform_topics, requests_topic
from tests.integration.ingest.lanes import EchoChannel, new_app, running, spec_of, submit

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 40.0


@asynccontextmanager
async def watched(kafka: KafkaSettings, app: str, **spec: object) -> AsyncIterator[tuple[Lane, MetricsBoard]]:
    """A lane at work whose metrics are gathered each quarter of a second, as its process does."""
    lane = Lane(settings=kafka, spec=spec_of(app, **spec), instance=f"{app}-0", channels=EchoChannel, result_partitions=1)
    board = MetricsBoard(now=time.monotonic())
    board.source(lane.samples)
    board.stalls_from(lane.stalls)

    async def gather() -> None:
        while True:
            board.gather(time.monotonic())
            await asyncio.sleep(0.25)

    async with running(lane, app):
        tasks = [asyncio.create_task(gather()), asyncio.create_task(name_producers(lane, kafka))]
        try:
            yield lane, board
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def told(board: MetricsBoard, condition: Callable[[tuple[Stall, ...]], bool]) -> tuple[Stall, ...]:
    await until(lambda: condition(board.snapshot.stalls))
    return board.snapshot.stalls


async def until(condition: Callable[[], bool]) -> None:
    await tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda holds: not holds),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(PATIENCE_SECONDS),
    )(asyncio.to_thread, condition)


def kinds(found: tuple[Stall, ...]) -> set[StallKind]:
    return {stall.kind for stall in found}


async def test_a_foreign_transaction_that_hangs_is_told_with_its_producer(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "OPEN_TRANSACTION_SECONDS", 1.5)
    app = await new_app(kafka, partitions=1)
    name = f"foreign-{app}"
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": name, "transaction.timeout.ms": 60_000, "linger.ms": 0}
    )
    await asyncio.to_thread(producer.init_transactions, 30)
    producer.begin_transaction()
    producer.produce(requests_topic(app), b"\x01", partition=0)
    await asyncio.to_thread(producer.flush, 30)
    async with watched(kafka, app, partitions=1) as (_, board):
        submit(kafka, app, 5, partitions=1)
        found = await told(board, lambda found: any(name in stall.why for stall in found))
        (stall,) = found
        assert stall.kind is StallKind.OPEN_TRANSACTION
        assert stall.subject == f"{requests_topic(app)}/0"
        assert "producer " in stall.why
        assert "--start-offset 0" in stall.why
        (sample,) = board.snapshot.samples[declared.OPEN_TRANSACTION]
        assert name in sample.attributes[declared.SUBJECT]
        await asyncio.to_thread(producer.abort_transaction, 30)
        await told(board, lambda found: not found)
        await until(lambda: board.snapshot.samples[declared.LAG][0].value == 0)


async def test_a_partition_of_which_nothing_is_committed_is_told(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "STUCK_MARGIN_SECONDS", 0.5)
    app = await new_app(kafka, partitions=1)
    async with watched(kafka, app, partitions=1, sla_seconds=1.0) as (lane, board):
        await lane._publisher.suspend()
        submit(kafka, app, 5, partitions=1)
        (stall,) = await told(board, lambda found: kinds(found) == {StallKind.PARTITION})
        assert "5 jobs" in stall.why
        assert board.snapshot.samples[declared.PROGRESS_AGE][0].value > 1.5
        lane._publisher.resume()
        await told(board, lambda found: not found)


async def test_a_broker_that_does_not_answer_is_told(
    kafka: KafkaSettings, kafka_broker: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "BROKER_SILENT_SECONDS", 2.0)
    app = await new_app(kafka, partitions=1)
    async with watched(kafka, app, partitions=1) as (_, board):
        await told(board, lambda _: declared.LAG in board.snapshot.samples)
        pid = kafka_broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            (stall,) = await told(board, lambda found: kinds(found) == {StallKind.BROKER})
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "does not answer" in stall.why
        await told(board, lambda found: not found)


async def test_a_frozen_process_is_told_by_status_and_one_that_goes_on_is_not(kafka: KafkaSettings) -> None:
    await ensure_topics(kafka, platform_topics())
    name = f"frozen-{os.getpid()}-{time.time_ns()}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.telemetry.quiet", name),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **kafka.to_env()},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.stdout.readline() == b"READY\n"
        health = await seen(kafka, name, lambda health: health is not None and not health.stalls)
        assert health is not None
        assert health.address is not None
        process.send_signal(signal.SIGSTOP)
        health = await seen(kafka, name, lambda health: health is not None and bool(health.stalls))
        assert health is not None
        assert "frozen" in health.stalls[0].text
        process.send_signal(signal.SIGCONT)
        await seen(kafka, name, lambda health: health is not None and not health.stalls)
    finally:
        process.kill()
        await process.wait()
    assert await seen(kafka, name, lambda health: health is None) is None


async def seen(kafka: KafkaSettings, name: str, condition: Callable[[ProcessHealth | None], bool]) -> ProcessHealth | None:
    """What `rayline status` would say of a resource, once it is so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            words = {process: word for process, word in (await read_last_words(kafka)).items() if process.endswith(name)}
            health = next(iter(await read_health(words)), None)
            if condition(health) and (words or health is None):
                return health
            await asyncio.sleep(0.2)
