"""A lane that follows the config topic, beside the real broker; its actors are not there (see `tests.integration.ingest`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer

from ingest.lane import Lane
from ingest.tuning import LaneTuning, manifest_values
from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.config import Answer, ConfigWatch, Presence, ProcessIdentity, Role, decode_applied
from rayline.results import BATCH
from rayline.topics import CONFIG, CONFIG_APPLIED, results_topic
from tests.integration.ingest.lanes import PARTITIONS, EchoChannel, running, spec_of, until


@dataclass
class TunedLane:
    lane: Lane
    watch: ConfigWatch
    tuning: LaneTuning
    process: str


@asynccontextmanager
async def tuned_lane(
    settings: KafkaSettings, app: str, instance: str = "0", *, beats: bool = True, **fields: object
) -> AsyncIterator[TunedLane]:
    """One lane at work that follows the config topic, as its process does."""
    spec = spec_of(app)
    given = {"spec": spec, "channels": EchoChannel, "result_partitions": PARTITIONS, **fields}
    lane = Lane(settings=settings, instance=instance, **given)  # type: ignore[arg-type]
    identity = ProcessIdentity(role=Role.LANE, app=app, name=instance)
    watch = ConfigWatch(settings=settings, identity=identity, base=manifest_values(given["spec"]))  # type: ignore[arg-type]
    tuning = LaneTuning(lane=lane, spec=given["spec"])  # type: ignore[arg-type]
    tuning.wire(watch)
    await watch.start()
    async with running(lane, app, beats=beats), following(watch):
        yield TunedLane(lane, watch, tuning, identity.process)


@asynccontextmanager
async def following(watch: ConfigWatch) -> AsyncIterator[None]:
    """The watch at work beside the test."""
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def write(settings: KafkaSettings, key: str | bytes | None, value: Any = None, *, raw: bytes | None = None) -> tuple[int, int]:
    """A record as any Kafka client writes it; returns its offset and the broker's time."""
    landed: list[tuple[int, int]] = []
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    body = raw if raw is not None else None if value is None else json.dumps(value).encode()
    producer.produce(CONFIG, key=key, value=body, on_delivery=lambda _, m: landed.append((m.offset(), m.timestamp()[1])))
    assert producer.flush(10) == 0
    return landed[0]


@dataclass
class Answers:
    """All that was said on `rayline.config.applied` since the start of this reader."""

    records: list[tuple[int, Answer]] = field(default_factory=list)
    present: dict[str, Presence] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def of(self, version: int, process: str) -> tuple[int, Answer] | None:
        found = [(at, answer) for at, answer in self.records if (answer.version, answer.process) == (version, process)]
        return found[-1] if found else None

    async def wait(self, version: int, process: str) -> tuple[int, Answer]:
        """Broker time and the answer of a process to a record."""
        await until(lambda: self.of(version, process) is not None, seconds=15, what=f"{process} on version {version}")
        found = self.of(version, process)
        assert found is not None
        return found


@asynccontextmanager
async def answers(settings: KafkaSettings, *, from_end: bool = True) -> AsyncIterator[Answers]:
    said = Answers()

    def take(record: LogRecord) -> None:
        if record.value is None:
            said.gone.add((record.key or b"").decode())
            return
        found = decode_applied(record.value)
        if isinstance(found, Answer):
            said.records.append((record.timestamp_ms, found))
        else:
            said.present[found.identity.process] = found

    async with reading(settings, CONFIG_APPLIED, take, from_end=from_end):
        yield said


@asynccontextmanager
async def batch_sizes(settings: KafkaSettings, app: str) -> AsyncIterator[list[tuple[int, int]]]:
    """Broker time and batch size of each result from now on."""
    seen: list[tuple[int, int]] = []

    def take(record: LogRecord) -> None:
        seen.append((record.timestamp_ms, int(dict(record.headers)[BATCH].split(b"/")[1])))

    async with reading(settings, results_topic(app), take):
        yield seen


@asynccontextmanager
async def reading(
    settings: KafkaSettings, topic: str, take: Callable[[LogRecord], None], *, from_end: bool = True
) -> AsyncIterator[None]:
    async with CompactedLog(settings=settings, topic=topic, from_end=from_end) as log:

        async def follow() -> None:
            async for record in log:
                take(record)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
