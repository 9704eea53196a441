"""The smallest lane: reads jobs, writes each as a result, commits both in one transaction. Also runs as a child process.

`python -m tests.support.tiny_lane APP NAME STOP_PHASE STOP_AT`: stops itself (SIGSTOP) at STOP_PHASE of transaction
number STOP_AT; prints the name of the error that its commit raised after it was woken.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from rayline.bus import GroupConsumer, KafkaSettings, Phase, RecordBatchWriter, TopicPartition, TransactionalProducer, fence
from rayline.errors import BusError
from rayline.topics import requests_topic, results_topic


class TinyLane:
    """Takes partitions over as a lane must: fence the owner, read stable, seek, claim, resume."""

    def __init__(self, settings: KafkaSettings, app: str, name: str) -> None:
        self.name = name
        self.transactions = 0
        self.taken = asyncio.Event()
        self._settings = settings
        self._results = results_topic(app)
        self.producer = TransactionalProducer(settings=settings, transactional_id=name)
        self.consumer = GroupConsumer(
            settings=settings,
            topics=[requests_topic(app)],
            group_id=app,
            listener=self,
            client_id=name,
            session_timeout_ms=2_000,
            heartbeat_interval_ms=200,
        )

    async def start(self) -> None:
        await self.producer.start()
        await self.consumer.start()

    async def stop(self) -> None:
        await self.consumer.stop()
        await self.producer.close()

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.taken.clear()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        if not partitions:
            return
        owners = {owner for _, owner in (await self.consumer.committed_so_far(partitions)).values() if owner}
        for owner in owners - {self.name} - await self.consumer.live_members():
            await fence(self._settings, owner)
        committed = await self.consumer.committed_stable(partitions)
        earliest = await self.consumer.earliest(partitions)
        claim = {tp: (earliest[tp] if offset < 0 else offset, self.name) for tp, (offset, _) in committed.items()}
        for tp, (offset, _) in claim.items():
            self.consumer.seek(tp, offset)
        await self.producer.commit(batches=[], offsets=claim, group=self.consumer.member())
        self.consumer.resume(partitions)
        self.taken.set()

    async def step(self, stop_at: Phase | None = None) -> int:
        """One poll and, if anything came, one transaction; returns how many jobs."""
        records = await self.consumer.getmany(timeout_ms=200, max_records=10)
        if not records:
            return 0
        self.transactions += 1
        batches = []
        for tp, found in records.items():
            batch = RecordBatchWriter()
            for record in found:
                assert batch.append(key=None, value=record.value)
            batches.append((self._results, tp.partition, batch))

        def on_phase(phase: Phase) -> None:
            if phase is stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)

        await self.producer.commit(
            batches=batches,
            offsets={tp: (found[-1].offset + 1, self.name) for tp, found in records.items()},
            group=self.consumer.member(),
            on_phase=on_phase,
        )
        return sum(len(found) for found in records.values())


async def _run(app: str, name: str, phase: Phase, stop_at: int) -> str:
    lane = TinyLane(KafkaSettings.from_env(os.environ), app, name)
    await lane.start()
    try:
        while True:
            await lane.step(phase if lane.transactions + 1 == stop_at else None)
    except BusError as error:
        return type(error).__name__
    finally:
        await lane.stop()


def main() -> None:
    app, name, phase, stop_at = sys.argv[1:]
    sys.stdout.write(asyncio.run(_run(app, name, Phase(phase), int(stop_at))) + "\n")


if __name__ == "__main__":
    main()
