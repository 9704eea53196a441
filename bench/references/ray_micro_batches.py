"""Reference: aiokafka and Ray actors, micro-batches of 64, at least once.

What a user writes who has Kafka and Ray and some skill: one asyncio process keeps several micro-batches under way at each
actor, sends a batch's results when it returns, and commits, in the background, what is done up to the first gap. Results carry
the job's key and no headers. Layout: one local Ray with one actor for each core.
"""

import asyncio
import logging
import shutil
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgpack
import ray
import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from bench.references.harness import Meter, RunReport, Task, say

MICRO_BATCH = 64
ACTORS = 2
_POLL_MS = 50
_FETCH_RECORDS = 4_096
_COMMIT_SECONDS = 0.1


class Workload(StrEnum):
    """Which feature the actors run."""

    ECHO = "echo"
    CPU = "cpu"
    IO = "io"


# Micro-batches under way at each actor, tuned on 2 cores: enough that an actor never waits, no more.
IN_FLIGHT = {Workload.ECHO: 8, Workload.CPU: 3, Workload.IO: 12}


class FeatureActor:
    """Decodes, calls the feature, encodes: one call for each micro-batch."""

    def __init__(self, workload: str, cpu_loops: int) -> None:
        from bench.workloads import features

        self._feature: Callable[[Any], Any]
        match Workload(workload):
            case Workload.ECHO:
                self._feature = features.echo
            case Workload.CPU:
                self._feature = features.Cpu(cpu_loops)
            case Workload.IO:
                self._feature = features.io

    def run(self, payloads: list[bytes]) -> list[bytes]:
        """Results in the order of the jobs."""
        return [msgpack.packb(self._feature(msgpack.unpackb(payload))) for payload in payloads]


class AsyncFeatureActor(FeatureActor):
    """The same for a feature that waits: the jobs of a micro-batch wait together."""

    async def run(self, payloads: list[bytes]) -> list[bytes]:  # type: ignore[override]
        """Results in the order of the jobs."""
        features = await asyncio.gather(*(self._feature(msgpack.unpackb(payload)) for payload in payloads))
        return [msgpack.packb(feature) for feature in features]


class Progress:
    """Owns what is under way in each partition, in order. ``committable`` gives offsets up to the first unfinished batch."""

    def __init__(self) -> None:
        self._under_way: dict[TopicPartition, deque[tuple[int, asyncio.Task[None]]]] = {}

    def add(self, partition: TopicPartition, next_offset: int, batch: asyncio.Task[None]) -> None:
        """A batch was sent off; batches of one partition are added in order."""
        self._under_way.setdefault(partition, deque()).append((next_offset, batch))

    def committable(self) -> dict[TopicPartition, int]:
        """Offsets that are new since the last call; raises what a batch raised."""
        offsets = {}
        for partition, batches in self._under_way.items():
            while batches and batches[0][1].done():
                next_offset, batch = batches.popleft()
                batch.result()
                offsets[partition] = next_offset
        return offsets


async def run(task: Task, workload: Workload, cpu_loops: int) -> RunReport:
    """Give ``task.jobs`` records to the actors and publish what they return."""
    actor_class = AsyncFeatureActor if workload is Workload.IO else FeatureActor
    remote_class = ray.remote(num_cpus=1)(actor_class)
    options = {"max_concurrency": IN_FLIGHT[workload]} if workload is Workload.IO else {}
    actors = [remote_class.options(**options).remote(workload.value, cpu_loops) for _ in range(ACTORS)]
    await asyncio.gather(*(actor.run.remote([]) for actor in actors))

    consumer = AIOKafkaConsumer(
        task.requests,
        bootstrap_servers=task.bootstrap_servers,
        group_id=task.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=1024 * 1024,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap_servers, acks="all", linger_ms=0, max_batch_size=256 * 1024, retry_backoff_ms=5
    )
    meter = Meter()
    async with producer, consumer:
        meter.start()
        processed = await _pump(consumer, producer, task, actors, IN_FLIGHT[workload])
        return meter.report(processed)


async def _pump(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, task: Task, actors: list[Any], in_flight: int) -> int:
    """Read until all jobs are under way, then wait for them; returns how many there were."""
    progress = Progress()
    results = ResultWriter(producer, task.results)
    idle_slots: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(in_flight):
        for actor in actors:
            idle_slots.put_nowait(actor)
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()
    processed, committed_at = 0, loop.time()
    while processed < task.jobs:
        fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_FETCH_RECORDS)
        for partition, batch in micro_batches(fetched):
            actor = await idle_slots.get()
            work = loop.create_task(_run_batch(results, partition.partition, batch, actor, idle_slots.put_nowait))
            running.add(work)
            work.add_done_callback(running.discard)
            progress.add(partition, batch[-1].offset + 1, work)
            processed += len(batch)
        if loop.time() - committed_at > _COMMIT_SECONDS:
            await _commit(consumer, progress)
            committed_at = loop.time()
    await asyncio.gather(*running)
    await _commit(consumer, progress)
    return processed


def micro_batches(
    fetched: Mapping[TopicPartition, list[ConsumerRecord]],
) -> Iterator[tuple[TopicPartition, list[ConsumerRecord]]]:
    """Cut what was fetched into micro-batches, one of each partition in turn, so that results go to all partitions at once."""
    longest = max(map(len, fetched.values()), default=0)
    for start in range(0, longest, MICRO_BATCH):
        for partition, records in fetched.items():
            if start < len(records):
                yield partition, records[start : start + MICRO_BATCH]


class ResultWriter:
    """Writes batches of results. One writer at a time for each partition: aiokafka takes one open batch a partition."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def write(self, partition: int, keyed: Iterable[tuple[bytes, bytes]]) -> list[asyncio.Future[Any]]:
        """Hand key-value pairs to the client; returns the deliveries to wait for."""
        waiting = []
        async with self._turns[partition]:
            builder = self._producer.create_batch()
            for key, value in keyed:
                if builder.append(timestamp=None, key=key, value=value) is None:
                    waiting.append(await self._producer.send_batch(builder, self._topic, partition=partition))
                    builder = self._producer.create_batch()
                    builder.append(timestamp=None, key=key, value=value)
            waiting.append(await self._producer.send_batch(builder, self._topic, partition=partition))
        return waiting


async def _run_batch(
    results: ResultWriter, partition: int, records: list[ConsumerRecord], actor: Any, give_back: Callable[[Any], None]
) -> None:
    """One micro-batch through an actor and into the results topic; its slot is free once the client took the results."""
    try:
        features = await actor.run.remote([record.value for record in records])
        keyed = ((record.key, feature) for record, feature in zip(records, features, strict=True))
        deliveries = await results.write(partition, keyed)
    finally:
        give_back(actor)
    await asyncio.gather(*deliveries)


async def _commit(consumer: AIOKafkaConsumer, progress: Progress) -> None:
    offsets = progress.committable()
    if offsets:
        await consumer.commit(offsets)


def main(
    workload: Annotated[Workload, typer.Argument()],
    bootstrap_servers: Annotated[str, typer.Option()],
    requests: Annotated[str, typer.Option()],
    results: Annotated[str, typer.Option()],
    jobs: Annotated[int, typer.Option()],
    cpu_loops: Annotated[int, typer.Option()] = 8_000,
) -> None:
    """Run once and print the report as JSON."""
    folder = tempfile.mkdtemp(prefix="rl-ray-")
    ray.init(num_cpus=ACTORS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder)
    try:
        task = Task(bootstrap_servers=bootstrap_servers, requests=requests, results=results, jobs=jobs)
        say(asyncio.run(run(task, workload, cpu_loops)))
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    typer.run(main)
