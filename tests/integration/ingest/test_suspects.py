"""A job that kills its worker, across a lane's restart: what was learnt is not learnt again."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgpack
import pyarrow as pa
import pytest

from ingest.lane import Lane
from rayline.bus import KafkaSettings
from rayline.bus.log import CompactedLog
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.results import parse_result
from rayline.suspects import suspects_key
from rayline.topics import SUSPECTS, requests_topic, results_topic
from rayline.wire import WHOLE_BATCH, AnswerHead, BatchHead, JobStatus, Verdict
from tests.integration.ingest.lanes import answer, new_app, spec_of, submit, until
from workers.channel import OnChunk

pytestmark = pytest.mark.integration

JOBS = 64
POISON = 37
BEAT_SECONDS = 0.2


class Fleet:
    """Actors of one app, each restarted under a new name when a job kills it; the death number `fatal` also ends the lane."""

    def __init__(self, app: str, *, fatal: int) -> None:
        self.app, self.fatal = app, fatal
        self.deaths = 0
        self.born = Counter[int]()
        self.lane_died = asyncio.Event()
        self._seq = 0

    def beat(self) -> list[NodeReport]:
        self._seq += 1
        return [
            NodeReport(f"c{n % 2}", f"n{n}", 1, self._seq, NodeState.READY, 1.0, actors=(self._endpoint(n),), beat=True)
            for n in range(4)
        ]

    def _endpoint(self, node: int) -> ActorEndpoint:
        return ActorEndpoint(self.app, "1", "a", "127.0.0.1", 1, 3, f"{node}.{self.born[node]}")

    def alive(self, endpoint: ActorEndpoint) -> bool:
        return endpoint == self._endpoint(int(endpoint.instance.partition(".")[0]))

    async def kill(self, endpoint: ActorEndpoint) -> None:
        self.deaths += 1
        self.born[int(endpoint.instance.partition(".")[0])] += 1
        if self.deaths == self.fatal:
            self.lane_died.set()
            await asyncio.Event().wait()


class DeadlyChannel:
    """An actor of a fleet."""

    slots = 3

    def __init__(self, endpoint: ActorEndpoint, fleet: Fleet) -> None:
        self._endpoint, self._fleet = endpoint, fleet

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        if not self._fleet.alive(self._endpoint):
            return AnswerHead(head.batch, True, Verdict.UNREACHED)
        payloads = batch.column(0).to_pylist()
        if head.alone:
            on_chunk(answer([], [], []), AnswerHead(head.batch, False, Verdict.DONE, begins=WHOLE_BATCH))
        if any(msgpack.unpackb(payload)["n"] == POISON for payload in payloads):
            await self._fleet.kill(self._endpoint)
            return AnswerHead(head.batch, True, Verdict.LOST)
        final = AnswerHead(head.batch, True, Verdict.DONE)
        on_chunk(answer(list(range(len(payloads))), [JobStatus.OK] * len(payloads), payloads), final)
        return final

    def close(self) -> None:
        pass


async def run_lane(kafka: KafkaSettings, fleet: Fleet) -> None:
    """A lane until it is cancelled, which is as abrupt as its death."""
    lane = Lane(
        settings=kafka,
        spec=spec_of(fleet.app, partitions=2),
        instance="0",
        channels=lambda endpoint: DeadlyChannel(endpoint, fleet),
        result_partitions=2,
    )

    async def beats() -> None:
        while True:
            lane.heard(fleet.beat())
            await asyncio.sleep(BEAT_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beats())
        tasks.create_task(lane.run(asyncio.Event()))


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled(), task.exception()


@pytest.mark.parametrize("fatal", [1, 3, 7, 8])
async def test_a_poison_job_kills_no_more_workers_when_its_lane_is_restarted(kafka: KafkaSettings, fatal: int) -> None:
    app = await new_app(kafka, partitions=2)
    fleet = Fleet(app, fatal=fatal)
    outcomes: dict[str, str] = {}
    places: list[str | None] = []

    async def read_results() -> None:
        async with CompactedLog(settings=kafka, topic=results_topic(app)) as results:
            async for record in results:
                result = parse_result(key=record.key, value=record.value, headers=record.headers, timestamp_ms=0)
                assert result.source not in outcomes
                outcomes[result.source] = result.outcome
                if result.outcome == "quarantined":
                    places.append(result.node)

    reading = asyncio.create_task(read_results())
    submit(kafka, app, JOBS, partitions=2)
    lane = asyncio.create_task(run_lane(kafka, fleet))
    async with asyncio.timeout(30):
        await fleet.lane_died.wait()
    await ended(lane)
    lane = asyncio.create_task(run_lane(kafka, fleet))
    await until(lambda: len(outcomes) == JOBS, what="all results")
    assert Counter(outcomes.values()) == {"ok": JOBS - 1, "quarantined": 1}
    assert None not in places
    # The lane cannot know of a death before the first one that it saw: only then one more is allowed.
    assert fleet.deaths <= JOBS.bit_length() - 1 + 2 + (fatal == 1)
    await until_tombstones(kafka, app)
    await ended(lane)
    await ended(reading)


async def until_tombstones(kafka: KafkaSettings, app: str) -> None:
    """What is settled is forgotten."""
    last: dict[bytes | None, bytes | None] = {}
    keys = {suspects_key(requests_topic(app), partition) for partition in range(2)}
    async with CompactedLog(settings=kafka, topic=SUSPECTS) as log, asyncio.timeout(20):
        while not (last.keys() & keys) or any(last[key] is not None for key in last.keys() & keys):
            for record in await log.getmany(timeout_ms=100):
                last[record.key] = record.value
