"""Follows Kafka and keeps the model: the one place where what operators look at is read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from aiokafka.structs import TopicPartition

from deploy.observation.model import BROKER, Model, results_source
from deploy.observation.snapshot import NodeSeries, Series, Snapshot
from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.bus.bounds import TopicBounds
from rayline.bus.connection import for_ever
from rayline.bus.sampled import SampledTopics
from rayline.errors import BusError
from rayline.lane_record import REPEAT_SECONDS
from rayline.topics import (
    APPS,
    CLUSTERS,
    CONFIG,
    CONFIG_APPLIED,
    EVENTS,
    VIEW,
    dlq_topic,
    group_id,
    requests_topic,
    results_topic,
)
from rayline.view_record import DEFAULT_GROUP
from scheduler.listener import Direct, Heard, Listener
from scheduler.node_feed import NodeFeed

_log = logging.getLogger(__name__)

CHANGES_PER_SECOND: Final = 2.0
RESULTS_PER_SECOND: Final = 2_000
_CLIENT: Final = "rayline-observation"
_POLL_MS: Final = 500
_PULL_SECONDS: Final = 0.25
_LOOK_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 1.0
_START_SECONDS: Final = 3.0
_FIRST_RESULTS_SECONDS: Final = 60
_EVENTS_SECONDS: Final = 3_600.0
_LANES_SECONDS: Final = 2 * REPEAT_SECONDS
_BEHIND_OFFSETS: Final = 400
_DEAD_LETTERS_READ: Final = 5_000
_GROUPS_A_LOOK: Final = 16
_LEAST_RESULTS: Final = 20


class Observation:
    """Follows a whole platform.

    Owns the readers, their tasks and the model. A broker that does not answer, and a topic that does not exist, end nothing: the
    snapshot tells it, and it is tried again. Life: `async with Observation(settings) as seen` → `snapshot`, `series`, `subscribe`
    at any time and from any number of tasks → the end of the block, which ends all readers.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str = DEFAULT_GROUP,
        changes_per_second: float = CHANGES_PER_SECOND,
        results_per_second: int = RESULTS_PER_SECOND,
    ) -> None:
        """`group` is whose resources are heard. Of more than `results_per_second` results a sample is read."""
        self._settings = settings
        self._changes_seconds = 1 / changes_per_second
        self._results_per_second = results_per_second
        self._listener = _Ears(group, self._take_lane)
        self._model = Model(broker=settings.bootstrap_servers, started_ms=self._now_ms())
        self._ends: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._shown: tuple[float, Snapshot] | None = None

    async def __aenter__(self) -> Observation:
        self._model.expect([BROKER, "nodes", "lanes", *(name for name, *_ in self._topics())])
        self._task = asyncio.create_task(self._run(), name="observation")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def snapshot(self) -> Snapshot:
        """Everything at this moment; viewers who ask at about the same time get the same one. Raises what ended the readers."""
        if self._task is not None and self._task.done():
            self._task.result()
        now = time.monotonic()
        if self._shown is None or now - self._shown[0] > self._changes_seconds / 2:
            self._shown = (now, self._model.snapshot(now, self._now_ms()))
        return self._shown[1]

    def series(self, app: str | None = None, seconds: int = 900) -> Series:
        """Latencies and events of the last seconds (at most 900), of one app or of all."""
        return self._model.series(app, self._now_ms(), seconds)

    def node_series(self, key: str) -> NodeSeries:
        """Weight, share, in flight and CPU of a node (`cluster/node`) or a cluster over the last 15 minutes."""
        return self._model.node_series(key)

    async def subscribe(self) -> AsyncIterator[Snapshot]:
        """The snapshot now, and again when something changed; at least once a second, since ages grow. Never ends by itself."""
        shown, due = -1, 0.0
        while True:
            if self._model.version != shown or time.monotonic() >= due:
                shown, due = self._model.version, time.monotonic() + _LOOK_SECONDS
                yield self.snapshot()
            await asyncio.sleep(self._changes_seconds)

    async def caught_up(self, timeout_seconds: float) -> bool:
        """Until every source has been read once; False when that took too long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                async for snapshot in self.subscribe():
                    if snapshot.caught_up:
                        return True
        except TimeoutError:
            return False
        raise AssertionError("unreachable: subscribe never ends")

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again("nodes", self._follow_nodes))
            tasks.create_task(self._again("lanes", self._read_lanes))
            tasks.create_task(self._again(BROKER, self._follow_offsets))
            tasks.create_task(self._tick())
            for source, topic, take, since_seconds in self._topics():
                tasks.create_task(self._again(source, self._follow(source, topic, take, since_seconds)))

    def _topics(self) -> list[tuple[str, str, Callable[[LogRecord], None], float | None]]:
        model = self._model
        return [
            ("apps", APPS, model.take_app, None),
            ("clusters", CLUSTERS, model.take_cluster, None),
            ("events", EVENTS, model.take_event, _EVENTS_SECONDS),
            ("settings", CONFIG, model.take_config, None),
            ("processes", CONFIG_APPLIED, model.take_applied, None),
        ]

    async def _again(self, source: str, follow: Callable[[], Awaitable[None]]) -> None:
        """Follow a source for ever, or until it is read (`follow` returned); what keeps it from being read is told."""

        async def once() -> None:
            try:
                await follow()
            except BaseExceptionGroup as group:
                known, other = group.split(BusError)
                if other is not None or known is None:
                    raise
                raise _first(known) from group

        await for_ever(BusError, pause_seconds=_AGAIN_SECONDS, tell=partial(self._fail, source))(once)

    def _fail(self, source: str, error: BaseException) -> None:
        _log.info("%s: %s", source, error)
        self._model.source_failed(source, str(error))

    def _follow(
        self, source: str, topic: str, take: Callable[[LogRecord], None], since_seconds: float | None
    ) -> Callable[[], Awaitable[None]]:
        async def follow() -> None:
            async with self._log(topic, since_seconds) as log:
                while True:
                    for record in await log.getmany(timeout_ms=_POLL_MS):
                        take(record)
                    if log.caught_up.is_set():
                        self._model.source_read(source, self._now_ms())

        return follow

    async def _follow_nodes(self) -> None:
        async with (
            NodeFeed(settings=self._settings, listener=self._listener, take=self._take_nodes, client_id=_CLIENT) as feed,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(feed.run())
            await feed.caught_up.wait()
            while True:
                self._model.source_read("nodes", self._now_ms())
                await asyncio.sleep(_LOOK_SECONDS)

    async def _read_lanes(self) -> None:
        """What lanes told before the nodes' feed began; from then on it brings their records, too."""
        async with self._log(VIEW, _LANES_SECONDS) as log:
            while not log.caught_up.is_set():
                for record in await log.getmany(timeout_ms=_POLL_MS):
                    self._take_lane(record)
        self._model.source_read("lanes", self._now_ms())

    async def _follow_offsets(self) -> None:
        """Ends and commits each second: the broker's answer is the proof that it is there. Results are read beside it."""
        async with AsyncExitStack() as stack:
            bounds = TopicBounds(settings=self._settings, client_id=_CLIENT, timeout_seconds=_START_SECONDS)
            stack.push_async_callback(bounds.stop)
            await bounds.start(_START_SECONDS)
            sampled = SampledTopics(settings=self._settings, client_id=_CLIENT)
            stack.push_async_callback(sampled.stop)
            await sampled.start(_START_SECONDS)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(self._pull_results(bounds, sampled))
            await self._look_at_offsets(bounds)

    async def _look_at_offsets(self, bounds: TopicBounds) -> None:
        turn = 0
        while True:
            apps = sorted(self._model.apps)
            topics = [name(app) for app in apps for name in (requests_topic, results_topic, dlq_topic)]
            self._ends = await bounds.ends(topics) if topics else await bounds.ends([APPS])
            chosen = [apps[(turn + n) % len(apps)] for n in range(min(len(apps), _GROUPS_A_LOOK))]
            turn += len(chosen)
            committed = await bounds.committed({group_id(app): requests_topic(app) for app in chosen})
            self._model.source_read(BROKER, self._now_ms())
            for app in chosen:
                topic = requests_topic(app)
                ends = {tp.partition: end for tp, end in self._ends.items() if tp.topic == topic}
                if not ends:
                    self._model.lose_offsets(app, f"the topic {topic} does not exist: `rayline deploy` makes it")
                    continue
                found = {tp.partition: offset for tp, offset in committed.items() if tp.topic == topic}
                if ends.keys() - found.keys():
                    starts = await bounds.starts([topic])
                    found = {tp.partition: offset for tp, offset in starts.items()} | found
                self._model.take_offsets(app, ends, found, self._now_ms())
            await asyncio.sleep(_LOOK_SECONDS)

    async def _pull_results(self, bounds: TopicBounds, sampled: SampledTopics) -> None:
        while True:
            apps = sorted(self._model.apps)
            await self._follow_results(apps, bounds, sampled)
            share = max(_LEAST_RESULTS, round(self._results_per_second * _PULL_SECONDS) // max(1, len(apps)))
            for app in apps:
                await self._pull(app, sampled, share)
            await asyncio.sleep(_PULL_SECONDS)

    async def _pull(self, app: str, sampled: SampledTopics, share: int) -> None:
        results, letters = results_topic(app), dlq_topic(app)
        if results in sampled.topics:
            got = await sampled.pull(results, max_records=share, max_behind=_BEHIND_OFFSETS, ends=self._ends)
            self._model.take_results(app, got.records, self._now_ms(), skipped=got.skipped)
            self._model.source_read(results_source(app), self._now_ms())
        if letters in sampled.topics:
            got = await sampled.pull(letters, max_records=share, max_behind=_DEAD_LETTERS_READ, ends=self._ends)
            self._model.take_dead_letters(app, len(got.records), got.skipped)

    async def _follow_results(self, apps: list[str], bounds: TopicBounds, sampled: SampledTopics) -> None:
        """Read the results of exactly these apps, each from a minute ago."""
        wanted = {name(app) for app in apps for name in (results_topic, dlq_topic)}
        known = {tp.topic for tp in self._ends}
        if (wanted & known) == set(sampled.topics):
            return
        since_ms = self._now_ms() - _FIRST_RESULTS_SECONDS * 1000
        results = [results_topic(app) for app in apps if results_topic(app) in known]
        letters = [dlq_topic(app) for app in apps if dlq_topic(app) in known]
        starts = await bounds.since(results, since_ms) | await bounds.starts(letters)
        ends = await bounds.ends(results)
        new = [app for app in apps if results_topic(app) in known and results_topic(app) not in sampled.topics]
        for app in new:
            skipped = 0
            for tp in [tp for tp in ends if tp.topic == results_topic(app)]:
                first = max(starts[tp], ends[tp] - _BEHIND_OFFSETS)
                skipped += first - starts[tp]
                starts[tp] = first
            self._model.take_results(app, (), self._now_ms(), skipped=skipped, seconds=_FIRST_RESULTS_SECONDS)
        for topic in set(sampled.topics) - wanted:
            self._model.forget_source(results_source(topic.removesuffix(".results")))
        sampled.follow(starts)

    async def _tick(self) -> None:
        while True:
            self._model.tick(time.monotonic(), self._now_ms())
            await asyncio.sleep(_LOOK_SECONDS)

    def _take_nodes(self, heard: Heard) -> None:
        self._model.take_nodes(heard)

    def _take_lane(self, record: LogRecord) -> None:
        self._model.take_lane(record)

    def _log(self, topic: str, since_seconds: float | None) -> CompactedLog:
        since_ms = None if since_seconds is None else round(self._now_ms() - since_seconds * 1000)
        return CompactedLog(
            settings=self._settings,
            topic=topic,
            since_ms=since_ms,
            client_id=_CLIENT,
            start_timeout_seconds=_START_SECONDS,
        )

    def _now_ms(self) -> int:
        return round(self._listener.clock.at(time.monotonic()))


class _Ears(Listener):
    """Hears nodes and resources as every listener, and hands on what lanes tell on the same topic."""

    def __init__(self, group: str, take_lane: Callable[[LogRecord], None]) -> None:
        super().__init__(groups=(group,), direct=Direct.UNTIL_TOLD)
        self._take_lane = take_lane

    def hear(self, topic: str, record: LogRecord, read_at: float, idle_at: float = float("-inf")) -> Heard | None:
        if topic == VIEW and (record.key or b"").startswith(b"lanes/"):
            self._take_lane(record)
            return None
        return super().hear(topic, record, read_at, idle_at)


def _first(group: BaseExceptionGroup[BusError]) -> BusError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
