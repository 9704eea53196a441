"""Each thing that can stand still, made to stand still on a real broker, and told as such."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tenacity
from confluent_kafka import Producer

from deploy.app_registry import publish_app, remove_app
from deploy.broker import LocalKafka
from deploy.config_board import read_last_words
from deploy.console.frame import troubles
from deploy.observation import Observation
from deploy.process_health import ProcessHealth, read_health
from deploy.status import read_status
from deploy.top.plain import plain
from ingest import stalls
from ingest.lane import Lane
from ingest.open_transactions import name_producers
from rayline.app_spec import AppSpec
from rayline.bus import KafkaSettings, ensure_topics
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.metrics import MetricsBoard, ProcessMetrics, declared
from rayline.stalls import Stall, StallKind
from rayline.topics import platform_topics, requests_topic
from tests.integration.ingest.lanes import EchoChannel, new_app, running, spec_of, submit
from tests.support.names import fresh

# A client that is given up while its broker stands still says so when it is collected, in whatever test that is.
UNCLOSED = "ignore::pytest.PytestUnraisableExceptionWarning"
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings(UNCLOSED)]

PATIENCE_SECONDS = 40.0


@pytest.fixture(scope="module", autouse=True)
def clients_of_a_frozen_broker() -> Iterator[None]:
    """Some are given up before they are closed, and say so when they are collected: within this module."""
    yield
    gc.collect()


@asynccontextmanager
async def watched(kafka: KafkaSettings, app: str, **spec: object) -> AsyncIterator[tuple[Lane, MetricsBoard]]:
    """A lane at work that tells of itself as its process does."""
    lane = Lane(settings=kafka, spec=spec_of(app, **spec), instance=f"{app}-0", channels=EchoChannel, result_partitions=1)
    identity = ProcessIdentity(role=Role.LANE, app=app, name="0")
    watching = ConfigWatch(settings=kafka, identity=identity, presence_seconds=1.0)
    async with running(lane, app), ProcessMetrics(identity=identity, environment={}) as metrics, watching as watch:
        metrics.board.source(lane.samples)
        metrics.board.stalls_from(lane.stalls)
        metrics.tell_by(watch)
        naming = asyncio.create_task(name_producers(lane, kafka))
        try:
            yield lane, metrics.board
        finally:
            naming.cancel()
            await asyncio.wait({naming})


class Onlookers:
    """Those who tell people: status asks anew each time, top and console share one observation."""

    def __init__(self, kafka: KafkaSettings, folder: Path, seen: Observation) -> None:
        self._kafka, self._folder, self._seen = kafka, folder, seen

    async def status(self, wanted: str) -> None:
        await self._until(lambda text: wanted in text, self._status)

    async def screens(self, wanted: str) -> None:
        for said in (self._top, self._console):
            await self._until(lambda text: wanted in text, said)

    async def event(self, kind: str, text: str) -> None:
        """That it is among the events that the screens show."""

        async def events() -> str:
            return "\n".join(event.text for event in self._seen.snapshot().events if event.kind == kind)

        await self._until(lambda said: text in said, events)

    async def all_tell(self, wanted: str) -> None:
        await self.status(wanted)
        await self.screens(wanted)

    async def nobody_tells(self, wanted: str) -> None:
        for said in (self._status, self._top, self._console):
            await self._until(lambda text: wanted not in text, said)

    async def _until(self, condition: Callable[[str], bool], said: Callable[[], Awaitable[str]]) -> None:
        async for attempt in tenacity.AsyncRetrying(
            wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_delay(PATIENCE_SECONDS), reraise=True
        ):
            with attempt:
                text = await said()
                assert condition(text), f"{said.__name__}: {text}"

    async def _status(self) -> str:
        return (await read_status(self._folder, self._kafka)).text()

    async def _top(self) -> str:
        return plain(self._seen.snapshot())

    async def _console(self) -> str:
        now = self._seen.snapshot()
        return "\n".join(text for _, text, tone in troubles(now, now.at_ms) if tone == "bad")


@pytest.fixture
async def onlookers(kafka: KafkaSettings, tmp_path: Path) -> AsyncIterator[Onlookers]:
    await ensure_topics(kafka, platform_topics())
    async with Observation(kafka, changes_per_second=10) as seen:
        assert await seen.caught_up(PATIENCE_SECONDS)
        yield Onlookers(kafka, tmp_path, seen)


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


async def test_a_partition_of_which_nothing_is_committed_is_told_everywhere(
    kafka: KafkaSettings, onlookers: Onlookers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "STUCK_MARGIN_SECONDS", 0.5)
    app = await new_app(kafka, partitions=1)
    async with watched(kafka, app, partitions=1, sla_seconds=1.0) as (lane, board):
        await onlookers.event("lane.claimed", f"lane {app}-0 works on partition(s) 0 of {app}")
        await lane._publisher.suspend()
        submit(kafka, app, 5, partitions=1)
        (stall,) = await told(board, lambda found: kinds(found) == {StallKind.PARTITION})
        assert "5 jobs" in stall.why
        (age,) = board.snapshot.samples[declared.PROGRESS_AGE]
        assert isinstance(age.value, float)
        assert age.value > 1.5
        line = f"lane/{app}/0: no progress of {requests_topic(app)}/0: 5 jobs were read and none of them ends"
        await onlookers.all_tell(line)
        lane._publisher.resume()
        await told(board, lambda found: not found)
        await onlookers.nobody_tells(line)


async def test_an_app_that_nobody_works_on_is_told_everywhere(kafka: KafkaSettings, onlookers: Onlookers) -> None:
    app = await new_app(kafka, partitions=1)
    await publish_app(kafka, AppSpec(app, "1", "/nowhere", "m:f", partitions=1))
    submit(kafka, app, 5, partitions=1)
    try:
        await onlookers.all_tell(f"5 jobs of {app} wait and it has no lane")
    finally:
        await remove_app(kafka, app)


async def test_a_broker_that_does_not_answer_is_told_everywhere(
    kafka: KafkaSettings, kafka_broker: LocalKafka, onlookers: Onlookers, monkeypatch: pytest.MonkeyPatch
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
            await onlookers.screens("answer")
            await onlookers.status("Kafka does not tell")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "does not answer" in stall.why
        await told(board, lambda found: not found)


async def test_a_frozen_lane_is_told_everywhere_and_one_that_goes_on_is_not(kafka: KafkaSettings, onlookers: Onlookers) -> None:
    app = fresh("frozen")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.telemetry.quiet", app),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **kafka.to_env()},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.stdout.readline() == b"READY\n"
        health = await seen(kafka, app, lambda health: health is not None and not health.stalls)
        assert health is not None
        assert health.address is not None
        process.send_signal(signal.SIGSTOP)
        await onlookers.status(f"lane/{app}/0 is frozen")
        await onlookers.screens(f"lane/{app}/0 has said nothing for")
        # What Prometheus calls `up == 0`.
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(urllib.request.urlopen, f"http://{health.address}/metrics", timeout=2)
        process.send_signal(signal.SIGCONT)
        await seen(kafka, app, lambda health: health is not None and not health.stalls)
        await onlookers.nobody_tells(f"lane/{app}/0")
    finally:
        process.kill()
        await process.wait()
    assert await seen(kafka, app, lambda health: health is None) is None


async def seen(kafka: KafkaSettings, app: str, condition: Callable[[ProcessHealth | None], bool]) -> ProcessHealth | None:
    """What asking the app's lane gives, once it is so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            words = {process: word for process, word in (await read_last_words(kafka)).items() if f"/{app}/" in process}
            health = next(iter(await read_health(words)), None)
            if condition(health) and (words or health is None):
                return health
            await asyncio.sleep(0.2)
