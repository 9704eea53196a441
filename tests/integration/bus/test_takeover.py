"""A lane frozen in mid-transaction: its successor goes on, and nothing it does when it wakes can be seen."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
import tenacity

from rayline.bus import KafkaSettings, Phase, ensure_topics
from rayline.topics import app_topics, requests_topic, results_topic
from tests.support.foreign import produce, read_committed
from tests.support.names import fresh
from tests.support.tiny_lane import TinyLane

pytestmark = pytest.mark.integration

JOBS = 200


@tenacity.retry(
    retry=tenacity.retry_if_result(lambda stopped: not stopped),
    wait=tenacity.wait_fixed(0.05),
    stop=tenacity.stop_after_delay(30),
)
async def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the lane ended before it was frozen"
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


def start_lane(kafka: KafkaSettings, app: str, name: str, stop_phase: Phase) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.tiny_lane", app, name, stop_phase, "4"],
        env={**os.environ, **kafka.to_env()},
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("phase", [Phase.BEGUN, Phase.SENT, Phase.OFFSETS_SENT])
async def test_a_zombie_neither_loses_nor_repeats_a_result(kafka: KafkaSettings, phase: Phase) -> None:
    app = fresh("takeover")
    await ensure_topics(kafka, app_topics(app, partitions=2))
    jobs = [b"%d" % number for number in range(JOBS)]
    produce(kafka, requests_topic(app), jobs, partitions=2)
    zombie = start_lane(kafka, app, f"{app}-zombie", phase)
    successor = TinyLane(kafka, app, f"{app}-successor")
    try:
        await is_stopped(zombie)
        frozen = time.monotonic()
        await successor.start()
        await successor.consumer.getmany(timeout_ms=0)
        async with asyncio.timeout(15):
            await successor.taken.wait()
        takeover_seconds = time.monotonic() - frozen
        done = len(read_committed(kafka, results_topic(app)))
        assert done == 30
        while done < JOBS:
            done += await successor.step()

        zombie.send_signal(signal.SIGCONT)
        said, _ = await asyncio.to_thread(zombie.communicate, timeout=30)
        assert said.decode().strip() in {"ProducerFenced", "MemberFenced"}
    finally:
        zombie.kill()
        zombie.wait()
        await successor.stop()
    counts = Counter(seen.value for seen in read_committed(kafka, results_topic(app)))
    assert counts == Counter(jobs)
    # Two seconds of session, and room for a busy machine; without fencing it would be the transaction's 15 s.
    assert takeover_seconds < 10
