"""Several lanes of one app: partitions change hands, and no result is lost or doubled by it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from ingest.lane import Lane
from rayline.bus import KafkaSettings
from tests.integration.ingest.lanes import (
    PARTITIONS,
    EchoChannel,
    assert_exactly_once,
    lane_processes,
    new_app,
    on_this_machine,
    running,
    spec_of,
    submit,
    until,
    verdict,
)

pytestmark = pytest.mark.integration

STORM_SECONDS = 15.0
MEMBER_SECONDS = 2.0
HANDOVER_SECONDS = 2.0


def lane_of(kafka: KafkaSettings, app: str, instance: str) -> Lane:
    return Lane(settings=kafka, spec=spec_of(app), instance=instance, channels=EchoChannel, result_partitions=PARTITIONS)


async def test_two_lanes_share_the_partitions_and_the_jobs(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    first, second = lane_of(kafka, app, "0"), lane_of(kafka, app, "1")
    async with running(first, app), running(second, app):
        await until(lambda: (first.statistics().partitions, second.statistics().partitions) == (4, 4), what="four each")
        submit(kafka, app, 2_000)
        assert_exactly_once(await verdict(kafka, app, 2_000), 2_000)
        assert sum(first.statistics().results.values()) == sum(second.statistics().results.values()) == 1_000


async def test_members_that_come_and_go_under_load_lose_and_double_nothing(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    submitted = 0
    storm = asyncio.Event()

    async def load() -> None:
        nonlocal submitted
        while not storm.is_set():
            await asyncio.to_thread(submit, kafka, app, 200, first=submitted)
            submitted += 200

    async def come_and_go(instance: str, delay: float) -> None:
        await asyncio.wait({waiting}, timeout=delay)
        while not storm.is_set():
            async with running(lane_of(kafka, app, instance), app):
                await asyncio.wait({waiting}, timeout=MEMBER_SECONDS)
            await asyncio.wait({waiting}, timeout=MEMBER_SECONDS)

    waiting = asyncio.create_task(storm.wait())
    async with running(lane_of(kafka, app, "0"), app):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load())
            tasks.create_task(come_and_go("1", 0.0))
            tasks.create_task(come_and_go("2", MEMBER_SECONDS / 2))
            await asyncio.wait({waiting}, timeout=STORM_SECONDS)
            storm.set()
        report = await verdict(kafka, app, submitted)
    assert submitted > 1_000
    assert_exactly_once(report, submitted)


async def test_a_lane_that_is_told_to_stop_hands_its_partitions_over_in_two_seconds(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    async with AsyncExitStack() as stack:
        start = await stack.enter_async_context(lane_processes(kafka, app))
        leaving = start("0")
        await leaving.ready()
        staying = lane_of(kafka, app, "1")
        await stack.enter_async_context(running(staying, app))
        await until(lambda: staying.statistics().partitions == PARTITIONS // 2, what="half of the partitions")
        submit(kafka, app, 400)
        began = time.monotonic()
        leaving.process.terminate()
        await until(lambda: staying.statistics().partitions == PARTITIONS, what="all partitions")
        handover = time.monotonic() - began
        assert await leaving.exit_code() == 0
        submit(kafka, app, 400, first=400)
        assert_exactly_once(await verdict(kafka, app, 800), 800)
    print(f"\nhandover: {handover:.2f} s")  # noqa: T201 - a measurement
    assert handover <= on_this_machine(HANDOVER_SECONDS), f"{handover:.2f} s"
