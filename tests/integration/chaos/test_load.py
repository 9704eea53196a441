"""The load keeps to its schedule in a process of its own, and puts between what it is told to."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from deploy.chaos.jobs import job_payload
from deploy.chaos.load import Load, LoadOptions
from deploy.committed_reader import read_committed
from rayline.bus import KafkaSettings, ensure_topics
from rayline.jobs import JOB_ID
from rayline.topics import app_topics, requests_topic

pytestmark = pytest.mark.integration


async def topic_of(kafka: KafkaSettings) -> str:
    app = f"load-{uuid.uuid4().hex[:8]}"
    await ensure_topics(kafka, app_topics(app, partitions=2, max_message_bytes=100_000))
    return app


def produced(kafka: KafkaSettings, app: str) -> dict[int, tuple[bytes | None, int]]:
    """Number → payload and append time."""
    records = read_committed(kafka.bootstrap_servers, requests_topic(app))
    return {int(dict(record.headers)[JOB_ID] or b""): (record.value, record.timestamp_ms) for record in records}


async def test_jobs_come_by_their_schedule_and_poison_in_the_middle_of_good_ones(kafka: KafkaSettings) -> None:
    app = await topic_of(kafka)
    load = Load(LoadOptions(kafka.bootstrap_servers, app, rate_per_second=100.0))
    begun = await load.start()
    await load.skew(-3600.0)
    await asyncio.sleep(0.5)  # the load's own schedule is what is measured
    await load.poison(beside=4)
    await asyncio.sleep(0.3)
    clockwork = await load.stop()
    jobs = await asyncio.to_thread(produced, kafka, app)
    steady = sorted(number for number in jobs if 0 <= number < 1_000_000)
    assert steady == list(range(len(steady)))
    assert len(steady) >= 50
    assert set(jobs) - set(steady) == set(clockwork.extras)
    assert len(clockwork.extras) == 5
    assert jobs[-1][0] == job_payload(-1, poison=True)
    assert clockwork.begun_ms == begun.begun_ms
    # Whatever the producer's clock says, the broker's counts.
    assert all(
        clockwork.due_ms(number) - 1 <= appended_ms <= clockwork.due_ms(number) + 5_000
        for number, (_, appended_ms) in jobs.items()
    )


async def test_a_burst_ends_by_itself(kafka: KafkaSettings) -> None:
    app = await topic_of(kafka)
    load = Load(LoadOptions(kafka.bootstrap_servers, app, rate_per_second=10_000.0, jobs=30))
    await load.start()
    await load.wait()
    assert sorted(await asyncio.to_thread(produced, kafka, app)) == list(range(30))
