"""Open-loop latency: jobs arrive on a schedule whatever the system does; latency counts from when a job was meant to arrive."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from bench.load import LoadError, Schedule, job_number
from deploy.checker import LatencyMs
from deploy.committed_reader import end_offsets
from rayline.topics import requests_topic, results_topic

_SETTLE_SECONDS = 30.0
MAX_MESSAGES = 2_000
WARM_UP_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What a live ``read_committed`` consumer saw: from the intended arrival of a job to its result in the consumer's hands."""

    schedule: Schedule
    latency_ms: LatencyMs
    over_one_second: int
    missing: int


def measure_open_loop(bootstrap_servers: str, app: str, *, rate_per_s: float, seconds: float) -> OpenLoop:
    """Produce from a process of its own and watch the results here. Raises LoadError when the producer fails."""
    return summarise(*watch_open_loop(bootstrap_servers, app, rate_per_s=rate_per_s, seconds=seconds))


def watch_open_loop(bootstrap_servers: str, app: str, *, rate_per_s: float, seconds: float) -> tuple[Schedule, dict[int, float]]:
    """As `measure_open_loop`, told job by job: when each was to arrive, and when (epoch milliseconds) its result was seen."""
    topic = results_topic(app)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"{app}.latency",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "log_level": 3,
        }
    )
    starts = end_offsets(bootstrap_servers, topic)
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
    words = ["--bootstrap-servers", bootstrap_servers, "--topic", requests_topic(app), "--rate", str(rate_per_s)]
    seconds += WARM_UP_SECONDS
    jobs = int(rate_per_s * seconds)
    command = [sys.executable, "-m", "bench.load", *words, "--seconds", str(seconds)]
    seen_ms: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as producer:
        try:
            deadline = time.monotonic() + seconds + _SETTLE_SECONDS
            while len(seen_ms) < jobs and time.monotonic() < deadline and not producer.poll():
                messages = consumer.consume(MAX_MESSAGES, timeout=0.02)
                now_ms = time.time() * 1000
                for message in messages:
                    if message.error() is None:
                        seen_ms.setdefault(job_number(message.key()), now_ms)
            said, _ = producer.communicate(timeout=_SETTLE_SECONDS)
        finally:
            producer.kill()
            consumer.close()
    if producer.returncode:
        raise LoadError(f"the open-loop producer ended with {producer.returncode}")
    return Schedule(**json.loads(said)), seen_ms


def summarise(schedule: Schedule, seen_ms: dict[int, float]) -> OpenLoop:
    """Latencies of the jobs that were seen (by number, epoch milliseconds); the others are missing, not fast.

    The load's own clients connect during the first seconds: those jobs count as results, not as latencies.
    """
    warm = int(schedule.rate_per_s * WARM_UP_SECONDS)
    latencies = [seen - schedule.intended_ms(number) for number, seen in seen_ms.items() if number >= warm]
    return OpenLoop(
        schedule=schedule,
        latency_ms=LatencyMs.of(latencies),
        over_one_second=sum(latency > 1000 for latency in latencies),
        missing=schedule.jobs - len(seen_ms),
    )
