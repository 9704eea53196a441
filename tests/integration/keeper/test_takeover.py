"""Two keepers, one of them killed or frozen: the other goes on where it was, and nothing is ordered twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from deploy.cluster_log import ClusterLog, want_clusters, write_entries
from deploy.keeper.process import EXIT_FENCED
from rayline.bus import CompactedLog, KafkaSettings, LogRecord, Phase, Publisher, delete_topics, ensure_topics
from rayline.clusters import (
    ActualCluster,
    ClusterBook,
    ClusterOrder,
    DesiredCluster,
    ExecutorIdentity,
    ProcessFact,
)
from rayline.clusters import Phase as ProcessPhase
from rayline.events import decode_event
from rayline.topics import CLUSTERS, EVENTS, platform_topics
from tests.support.names import fresh

pytestmark = pytest.mark.integration

# Two seconds of session here, six in earnest; the rest is room for a busy machine.
TAKEOVER_SECONDS = 40.0


@pytest.fixture
async def publisher(kafka: KafkaSettings) -> AsyncIterator[Publisher]:
    """On a broker whose platform topics are new."""
    await ensure_topics(kafka, platform_topics())
    await delete_topics(kafka, [CLUSTERS, EVENTS])
    await ensure_topics(kafka, platform_topics())
    async with Publisher(settings=kafka) as made:
        yield made


@contextmanager
def keeper(
    kafka: KafkaSettings, name: str, group: str, *, stop_phase: Phase = Phase.BEGUN, stop_at: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.keeper_main", name, group, stop_phase, str(stop_at)],
        env={**os.environ, **kafka.to_env()},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until(log: ClusterLog, condition: Callable[[ClusterBook], bool], timeout_seconds: float = TAKEOVER_SECONDS) -> None:
    async with asyncio.timeout(timeout_seconds):
        async for book in log.changes():
            if condition(book):
                return


async def stopped(process: subprocess.Popen[bytes]) -> None:
    """Until it has stopped itself, told by the system."""
    await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


async def carry_out(publisher: Publisher, order: ClusterOrder) -> None:
    """Say that everything in the order runs."""
    running = ProcessFact(ProcessPhase.RUNNING, round(time.time() * 1000))
    pods = dict.fromkeys(order.pods, running)
    await write_entries(publisher, ActualCluster(order.cluster, order.executor, order.revision, order.generation, running, pods))


async def lose_pod(publisher: Publisher, order: ClusterOrder, pod: str) -> None:
    now_ms = round(time.time() * 1000)
    running = ProcessFact(ProcessPhase.RUNNING, now_ms)
    ended = ProcessFact(ProcessPhase.ENDED, now_ms, ran_ms=60_000, reason="killed")
    pods = {name: ended if name == pod else running for name in order.pods}
    await write_entries(publisher, ActualCluster(order.cluster, order.executor, order.revision, order.generation, running, pods))


async def everything(kafka: KafkaSettings, topic: str) -> list[LogRecord]:
    found: list[LogRecord] = []
    async with CompactedLog(settings=kafka, topic=topic) as log:
        while not log.caught_up.is_set():
            found += await log.getmany(timeout_ms=200)
    return found


async def replaced(kafka: KafkaSettings) -> list[str]:
    events = [decode_event(record.value or b"") for record in await everything(kafka, EVENTS)]
    return [event.text for event in events if event.kind == "pod.replaced"]


async def start(kafka: KafkaSettings, publisher: Publisher, log: ClusterLog) -> ClusterOrder:
    """An executor that carries the first order out."""
    await write_entries(publisher, ExecutorIdentity("executor"))
    await want_clusters(publisher, [DesiredCluster("c1", 3)], remove=[])
    await until(log, lambda book: "c1" in book.orders)
    order = log.book.orders["c1"]
    assert len(order.pods) == 3
    await carry_out(publisher, order)
    return order


async def test_a_killed_keepers_successor_goes_on_where_it_was(kafka: KafkaSettings, publisher: Publisher) -> None:
    group = fresh("keepers")
    async with ClusterLog(kafka) as log:
        with keeper(kafka, "keeper-1", group) as first:
            order = await start(kafka, publisher, log)
            with keeper(kafka, "keeper-2", group):
                first.kill()
                killed = time.monotonic()
                await lose_pod(publisher, order, "c1-pod-2")
                await until(log, lambda book: "c1-pod-4" in book.orders["c1"].pods)
                took_seconds = time.monotonic() - killed
                assert log.book.epoch > 1
                assert set(log.book.orders["c1"].pods) == {"c1-pod-1", "c1-pod-3", "c1-pod-4"}
    assert await replaced(kafka) == ["c1-pod-4 replaces c1-pod-2: killed"]
    assert took_seconds < TAKEOVER_SECONDS


@pytest.mark.parametrize("phase", [Phase.BEGUN, Phase.SENT, Phase.OFFSETS_SENT])
async def test_a_frozen_keepers_order_never_counts(kafka: KafkaSettings, publisher: Publisher, phase: Phase) -> None:
    group = fresh("keepers")
    # Its transactions are: the claim, the first order, the replacement that it does not finish.
    async with ClusterLog(kafka) as log:
        with keeper(kafka, "zombie", group, stop_phase=phase, stop_at=3) as zombie:
            order = await start(kafka, publisher, log)
            await lose_pod(publisher, order, "c1-pod-1")
            await stopped(zombie)
            with keeper(kafka, "successor", group):
                await until(log, lambda book: "c1-pod-4" in book.orders["c1"].pods)
                assert log.book.orders["c1"].epoch == log.book.epoch == 2
                zombie.send_signal(signal.SIGCONT)
                # A loss after its waking is the successor's to answer.
                await carry_out(publisher, log.book.orders["c1"])
                await lose_pod(publisher, log.book.orders["c1"], "c1-pod-2")
                await until(log, lambda book: "c1-pod-5" in book.orders["c1"].pods)
                assert log.book.lease is not None
                assert log.book.lease.holder == "successor"
                assert await asyncio.to_thread(zombie.wait, TAKEOVER_SECONDS) == EXIT_FENCED
    assert await replaced(kafka) == ["c1-pod-4 replaces c1-pod-1: killed", "c1-pod-5 replaces c1-pod-2: killed"]
