"""Reference: aiokafka alone, exactly once. Jobs are echoed as bytes: no worker, no decoding.

What a user writes from aiokafka's documentation: read, ``send()`` each result, commit offsets in the same transaction. One
process, one consumer, one transactional producer; transactions of up to ``MAX_POLL_RECORDS``.
"""

import asyncio
from typing import Annotated

import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.references.harness import Meter, RunReport, Task, say

MAX_POLL_RECORDS = 4_000
_POLL_MS = 200


async def run(task: Task) -> RunReport:
    """Echo ``task.jobs`` records."""
    consumer = AIOKafkaConsumer(
        task.requests,
        bootstrap_servers=task.bootstrap_servers,
        group_id=task.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=1024 * 1024,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap_servers,
        transactional_id=f"{task.group}.producer",
        linger_ms=5,
        max_batch_size=256 * 1024,
        retry_backoff_ms=5,
    )
    meter = Meter()
    processed = 0
    async with producer, consumer:
        meter.start()
        while processed < task.jobs:
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=MAX_POLL_RECORDS)
            if not fetched:
                continue
            async with producer.transaction():
                sent = [
                    await producer.send(task.results, record.value, key=record.key, partition=partition.partition)
                    for partition, records in fetched.items()
                    for record in records
                ]
                await producer.flush()
                for delivery in sent:
                    delivery.result()  # raises: a failed one must not be committed over
                offsets = {partition: records[-1].offset + 1 for partition, records in fetched.items()}
                await producer.send_offsets_to_transaction(offsets, task.group)
            processed += len(sent)
        return meter.report(processed)


def main(
    bootstrap_servers: Annotated[str, typer.Option()],
    requests: Annotated[str, typer.Option()],
    results: Annotated[str, typer.Option()],
    jobs: Annotated[int, typer.Option()],
) -> None:
    """Run once and print the report as JSON."""
    say(asyncio.run(run(Task(bootstrap_servers=bootstrap_servers, requests=requests, results=results, jobs=jobs))))


if __name__ == "__main__":
    typer.run(main)
