"""The load that all contestants get: topics, a pre-produced heap of jobs, and an open-loop producer that keeps to a schedule.

Jobs are msgpack maps of about 1 kB; their key is the job's number, eight bytes, so that a system without headers can be judged
as well. ``python -m bench.load`` is the open-loop producer as a process of its own.
"""

import json
import random
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgpack
import typer
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from rayline.errors import RaylineError
from rayline.jobs import TRACEPARENT
from rayline.topics import app_topics

PARTITIONS = 8
JOB_BYTES = 1000
_TICK_SECONDS = 0.005
_KEY = struct.Struct(">Q")
_FLUSH_SECONDS = 60.0
_ADMIN_SECONDS = 30.0
_QUIET = {"log_level": 3}


class LoadError(RaylineError):
    """The load itself went wrong, so that nothing can be said of a contestant."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Job ``n`` was meant to arrive at ``started_ms + n / rate``; ``worst_slip_ms`` is how far the producer fell behind."""

    started_ms: float  # epoch
    rate_per_s: float
    jobs: int
    worst_slip_ms: float

    def intended_ms(self, number: int) -> float:
        """When job ``number`` was meant to arrive, epoch milliseconds."""
        return self.started_ms + number * 1000 / self.rate_per_s


def payload(number: int) -> bytes:
    """About ``JOB_BYTES`` of msgpack: what a feature job looks like, ids, a few numbers and a text."""
    job = {"id": number, "user": f"user-{number % 10_007}", "scores": [0.25, 0.5, number / 7], "text": ""}
    job["text"] = "x" * (JOB_BYTES - len(_pack(job)) - 2)  # 2: a string of this length has a longer head
    return _pack(job)


def key(number: int) -> bytes:
    """The key of a job."""
    return _KEY.pack(number)


def new_traceparent() -> bytes:
    """A W3C traceparent that begins a sampled trace."""
    return b"00-%032x-%016x-01" % (random.getrandbits(128) or 1, random.getrandbits(64) or 1)


def job_number(job_key: bytes) -> int:
    """The number of a job, from its key."""
    number: int = _KEY.unpack(job_key)[0]
    return number


def create_topics(bootstrap_servers: str, app: str) -> None:
    """The topics of an app as Rayline makes them, for every contestant. Raises LoadError."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, **_QUIET})  # kept: its futures end with it
    new = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=1, config=spec.config)
        for spec in app_topics(app, partitions=PARTITIONS)
    ]
    _finish(admin.create_topics(new))


def delete_topics(bootstrap_servers: str, app: str) -> None:
    """Give the disk back between runs. Raises LoadError."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, **_QUIET})
    _finish(admin.delete_topics([spec.name for spec in app_topics(app, partitions=PARTITIONS)]))


def _finish(futures: Mapping[str, Any]) -> None:
    for topic, future in futures.items():
        try:
            future.result(_ADMIN_SECONDS)
        except KafkaException as error:
            raise LoadError(f"topic {topic} could not be made or deleted: {error}") from error


class JobProducer:
    """Owns a confluent-kafka producer and notices failed deliveries. Does not own topics. Close with ``flush``."""

    def __init__(self, bootstrap_servers: str, topic: str, *, linger_ms: float, traced: bool = False) -> None:
        """`traced`: each job begins a sampled trace of its own."""
        self._topic = topic
        self._traced = traced
        self._failed: str | None = None
        settings: Mapping[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            **_QUIET,
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "batch.size": 512 * 1024,
            "queue.buffering.max.messages": 500_000,
        }
        self._producer = Producer(settings)

    def send(self, number: int) -> None:
        """Queue one job, waiting while the client's queue is full."""
        headers = [(TRACEPARENT, new_traceparent())] if self._traced else None
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    payload(number),
                    key(number),
                    partition=number % PARTITIONS,
                    headers=headers,
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def poll(self) -> None:
        """Take delivery reports; raises LoadError for a failed one."""
        self._producer.poll(0)
        if self._failed is not None:
            raise LoadError(f"a job could not be produced: {self._failed}")

    def flush(self) -> None:
        """Wait for all deliveries; raises LoadError when one failed or is missing."""
        left = self._producer.flush(_FLUSH_SECONDS)
        self.poll()
        if left:
            raise LoadError(f"{left} jobs were not delivered within {_FLUSH_SECONDS:g} s")

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed = str(error)


def preload(bootstrap_servers: str, topic: str, jobs: int) -> float:
    """Produce jobs 0…n-1 as fast as can be; returns the seconds it took."""
    started = time.perf_counter()
    producer = JobProducer(bootstrap_servers, topic, linger_ms=20)
    for number in range(jobs):
        producer.send(number)
        if number % 1000 == 0:
            producer.poll()
    producer.flush()
    return time.perf_counter() - started


def produce_on_schedule(
    bootstrap_servers: str, topic: str, *, rate_per_s: float, seconds: float, traced: bool = False
) -> Schedule:
    """Open loop: jobs leave when they are due, however the system under test does. Blocks for ``seconds``. `traced` as for
    `JobProducer`."""
    producer = JobProducer(bootstrap_servers, topic, linger_ms=5, traced=traced)
    jobs = int(rate_per_s * seconds)
    started_ms, started = time.time() * 1000, time.perf_counter()
    sent, worst_slip = 0, 0.0
    while sent < jobs:
        now = time.perf_counter() - started
        due = min(jobs, int(now * rate_per_s) + 1)
        if due > sent:
            worst_slip = max(worst_slip, now - sent / rate_per_s)
        for number in range(sent, due):
            producer.send(number)
        sent = due
        producer.poll()
        time.sleep(max(0.0, _TICK_SECONDS - (time.perf_counter() - started - now)))
    producer.flush()
    return Schedule(started_ms=started_ms, rate_per_s=rate_per_s, jobs=jobs, worst_slip_ms=worst_slip * 1000)


def calibrate_loops(target_seconds: float = 0.001) -> int:
    """How many steps of the fixed loop take about 1 ms here: the fastest of several tries, so that noise does not shorten it."""
    from bench.workloads.features import burn

    probe = 200_000
    fastest = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        burn(probe)
        fastest = min(fastest, time.perf_counter() - started)
    return max(1, round(probe * target_seconds / fastest))


def _pack(job: Mapping[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(job)
    return packed


def main(
    bootstrap_servers: Annotated[str, typer.Option()],
    topic: Annotated[str, typer.Option()],
    rate: Annotated[float, typer.Option(help="jobs a second")] = 10_000,
    seconds: Annotated[float, typer.Option()] = 10,
    traced: Annotated[bool, typer.Option("--traced", help="each job begins a sampled trace")] = False,
) -> None:
    """Produce on schedule and print the schedule as JSON."""
    schedule = produce_on_schedule(bootstrap_servers, topic, rate_per_s=rate, seconds=seconds, traced=traced)
    typer.echo(json.dumps(asdict(schedule)))


if __name__ == "__main__":
    typer.run(main)
