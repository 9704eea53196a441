"""The Ray reference is at least once: it commits nothing beyond the first unfinished batch."""

import asyncio

import pytest
from aiokafka import TopicPartition

from bench.processes import spent
from bench.references.ray_micro_batches import Progress

PARTITION = TopicPartition("t", 0)


async def test_commits_stop_at_the_first_gap() -> None:
    progress, gates = Progress(), [asyncio.Event() for _ in range(3)]

    async def batch(gate: asyncio.Event) -> None:
        await gate.wait()

    tasks = [asyncio.create_task(batch(gate)) for gate in gates]
    for next_offset, task in zip((64, 128, 192), tasks, strict=True):
        progress.add(PARTITION, next_offset, task)
    gates[1].set()
    await tasks[1]
    assert progress.committable() == {}
    gates[0].set()
    await tasks[0]
    assert progress.committable() == {PARTITION: 128}
    assert progress.committable() == {}
    gates[2].set()
    await tasks[2]
    assert progress.committable() == {PARTITION: 192}


async def test_a_failed_batch_is_raised_and_never_committed() -> None:
    progress = Progress()

    async def fails() -> None:
        raise RuntimeError("actor died")

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    progress.add(PARTITION, 64, task)
    with pytest.raises(RuntimeError, match="actor died"):
        progress.committable()


def test_cpu_spent_is_the_difference_by_role() -> None:
    assert spent({"lane": 1.0, "gone": 5.0}, {"lane": 1.5, "workers": 0.25}) == {"lane": 0.5, "workers": 0.25}
