"""A lane that is killed, frozen, or left without its broker, in every phase of a transaction: nothing lost, nothing doubled."""

from __future__ import annotations

import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from deploy.broker import LocalKafka
from ingest.lane import Lane
from ingest.lane_process import EXIT_FENCED
from rayline.bus import KafkaSettings, Phase
from tests.integration.ingest.lanes import (
    PARTITIONS,
    SESSION_MS,
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

JOBS = 4_000
TAKEOVER_SECONDS = 1.5  # beyond the frozen lane's session


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_lane_killed_in_a_transaction_loses_and_doubles_nothing(kafka: KafkaSettings, phase: Phase) -> None:
    app = await new_app(kafka)
    submit(kafka, app, JOBS)
    async with lane_processes(kafka, app) as start:
        # The claim is transaction number 1. One phase shows a lane that dies again with the first results after its return.
        for at in (3, 2) if phase is Phase.OFFSETS_SENT else (3,):
            killed = start("0", phase=phase, number=signal.SIGKILL, at=at)
            assert await killed.exit_code() == -signal.SIGKILL
        healthy = Lane(settings=kafka, spec=spec_of(app), instance="0", channels=EchoChannel, result_partitions=PARTITIONS)
        async with running(healthy, app):
            assert_exactly_once(await verdict(kafka, app, JOBS), JOBS)


async def test_a_lane_killed_in_its_claim_leaves_the_partitions_as_they_were(kafka: KafkaSettings) -> None:
    app = await new_app(kafka)
    submit(kafka, app, JOBS)
    async with lane_processes(kafka, app) as start:
        killed = start("0", phase=Phase.OFFSETS_SENT, number=signal.SIGKILL, at=1)
        assert await killed.exit_code() == -signal.SIGKILL
        healthy = Lane(settings=kafka, spec=spec_of(app), instance="0", channels=EchoChannel, result_partitions=PARTITIONS)
        async with running(healthy, app):
            assert_exactly_once(await verdict(kafka, app, JOBS), JOBS)


@pytest.mark.parametrize("phase", [Phase.SENT, Phase.OFFSETS_SENT])
async def test_a_frozen_lane_is_replaced_and_cannot_publish_when_it_wakes(
    kafka: KafkaSettings, phase: Phase, record_property: pytest.RecordProperty
) -> None:
    app = await new_app(kafka)
    submit(kafka, app, JOBS)
    async with AsyncExitStack() as stack:
        start = await stack.enter_async_context(lane_processes(kafka, app))
        zombie = start("0", phase=phase, number=signal.SIGSTOP, at=3)
        await zombie.frozen()
        frozen = time.monotonic()
        successor = Lane(
            settings=kafka,
            spec=spec_of(app),
            instance="1",
            channels=EchoChannel,
            result_partitions=PARTITIONS,
            session_timeout_ms=SESSION_MS,
        )
        await stack.enter_async_context(running(successor, app))
        await until(lambda: sum(successor.statistics().results.values()) > 0, what="the successor publishes")
        takeover = time.monotonic() - frozen
        record_property("takeover_seconds", takeover)
        print(f"\ntakeover after freezing in {phase}: {takeover:.2f} s")  # noqa: T201 - a measurement
        zombie.wake()
        assert await zombie.exit_code() == EXIT_FENCED
        assert_exactly_once(await verdict(kafka, app, JOBS), JOBS)
    assert takeover <= SESSION_MS / 1000 + on_this_machine(TAKEOVER_SECONDS), f"{takeover:.2f} s"


async def test_a_lane_outlives_its_broker(tmp_path: Path) -> None:
    broker = LocalKafka(data_dir=tmp_path / "kafka")
    await broker.start()
    try:
        app = await new_app(broker.settings)
        async with lane_processes(broker.settings, app) as start:
            lane = start("0")
            await lane.ready()
            submit(broker.settings, app, JOBS)
            await broker.kill()
            await broker.start()
            submit(broker.settings, app, JOBS, first=JOBS)
            assert_exactly_once(await verdict(broker.settings, app, 2 * JOBS), 2 * JOBS)
            assert lane.process.poll() is None
            assert await lane.stop() < on_this_machine(5)
    finally:
        await broker.kill()
