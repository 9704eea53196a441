"""The process of one resource: `scheduler.resource` between the topics it reads and the one it writes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from rayline.bus import KafkaSettings, Publisher
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.errors import BusError
from rayline.events import encode_event
from rayline.metrics import MetricsBoard, ProcessMetrics, Sample, declared
from rayline.topics import EVENTS, VIEW
from rayline.waits import news_by
from scheduler.listener import Direct, Heard, Listener
from scheduler.metering import view_samples
from scheduler.node_feed import NodeFeed
from scheduler.node_history import EVENT_ID, KINDS, NodeEvent
from scheduler.resource import Resource

_log = logging.getLogger(__name__)
_EVENTS_SECONDS: Final = 1.0
# While Kafka takes none, the oldest make room.
_MAX_UNTOLD: Final = 10_000
_ROUNDS: Final = "rounds"
_LEAST_ROUNDS_SECONDS: Final = 10.0


class ResourceService:
    """Owns one resource's reader and writer. Does not own what it knows: a restart learns it again in a moment.

    Life: `run` → reads what stands there → rounds and news until `stop` is set.
    """

    def __init__(self, *, settings: KafkaSettings, resource: Resource, below: Sequence[str] = ()) -> None:
        """`below`: groups whose resources are heard instead of the nodes themselves."""
        self.resource = resource
        self._settings = settings
        self._wake = asyncio.Event()
        self._events = Counter(dict.fromkeys(KINDS, 0))
        self._untold: deque[NodeEvent] = deque(maxlen=_MAX_UNTOLD)
        self.round_at = 0.0
        listener = Listener(groups=(resource.group, *below), direct=Direct.NEVER if below else Direct.ALWAYS)
        self._feed = NodeFeed(
            settings=settings, listener=listener, take=self._take, direct=not below, client_id=f"rayline-resource-{resource.name}"
        )

    def samples(self, now: float) -> list[Sample]:
        """What it counts and knows, for its metrics."""
        statistics = self.resource.statistics()
        return [
            *view_samples(self.resource.view, now),
            *(Sample(declared.NODE_EVENTS, count, {declared.EVENT: kind}) for kind, count in self._events.items()),
            Sample(declared.VIEW_PUBLISHED, statistics.published),
            Sample(declared.VIEW_PUBLISHED_BYTES, statistics.published_bytes),
            Sample(declared.REPORTS_HEARD, statistics.heard),
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Raises BusError when Kafka refuses to be read; what cannot be written now is written in a later round."""
        client_id = f"rayline-resource-{self.resource.name}"
        async with (
            self._feed,
            Publisher(settings=self._settings, client_id=client_id) as publisher,
            asyncio.TaskGroup() as tasks,
        ):
            workers = [
                tasks.create_task(self._feed.run(), name="nodes"),
                tasks.create_task(self._publish(publisher), name="rounds"),
            ]
            await stop.wait()
            for worker in workers:
                worker.cancel()

    def set_interval(self, seconds: float) -> None:
        """Publish a round so often, also when the one that is under way was to last longer."""
        self.resource.set_interval(seconds)
        self._wake.set()

    def _take(self, heard: Heard) -> None:
        before = self.resource.due()
        self.resource.take(heard)
        if self.resource.due() < before:
            self._wake.set()

    async def _publish(self, publisher: Publisher) -> None:
        resource = self.resource
        await self._feed.caught_up.wait()
        resource.started(time.monotonic())
        _log.info("resource %s/%s knows %d node(s)", resource.group, resource.name, resource.statistics().nodes)
        events_at = 0.0
        while True:
            self._wake.clear()
            now = time.monotonic()
            try:
                for record in resource.records(now):
                    await publisher.publish(VIEW, key=record.key.encode(), value=record.value)
                self.round_at = time.monotonic()
                if now >= events_at or resource.has_events:
                    events_at = now + _EVENTS_SECONDS
                    await self._tell_events(publisher, resource.events(now))
            except BusError as error:
                _log.warning("resource %s/%s could not publish: %s", resource.group, resource.name, error)
            await news_by(self._wake, min(resource.due(), events_at))

    async def _tell_events(self, publisher: Publisher, events: Sequence[NodeEvent]) -> None:
        """All at once, in their order; raises BusError when Kafka refuses one, and then tells all of them again with the next."""
        self._events.update(one.event.kind for one in events)
        self._untold.extend(events)
        sent = [
            await publisher.enqueue(
                EVENTS, key=one.event.key, value=encode_event(one.event), headers=[(EVENT_ID, one.identity.encode())]
            )
            for one in self._untold
        ]
        await asyncio.gather(*sent)
        self._untold.clear()


async def run(*, name: str, group: str, clusters: Sequence[str], below: Sequence[str], interval_seconds: float) -> None:
    """Run one resource until SIGTERM or SIGINT; Kafka's settings come from the environment."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    resource = Resource(name=name, group=group, clusters=clusters, interval_seconds=interval_seconds)
    settings = KafkaSettings.from_env(os.environ)
    identity = ProcessIdentity(role=Role.RESOURCE, name="-".join((group, name)), registrar=True)
    service = ResourceService(settings=settings, resource=resource, below=below)
    watch = watch_config(settings, identity, service, interval_seconds=interval_seconds)
    async with ProcessMetrics(identity=identity) as metrics, watch:
        metrics.tell_by(watch)
        _measure(metrics.board, service, interval_seconds=interval_seconds)
        await service.run(stop)


def watch_config(
    settings: KafkaSettings, identity: ProcessIdentity, service: ResourceService, *, interval_seconds: float
) -> ConfigWatch:
    """Every setting of a resource, wired; `interval_seconds` is what it was started with."""
    watch = ConfigWatch(settings=settings, identity=identity, base={"view.interval_seconds": interval_seconds})
    return watch.on("view.interval_seconds", service.set_interval).on("view.lost_seconds", service.resource.set_lost_after)


def _measure(board: MetricsBoard, service: ResourceService, *, interval_seconds: float) -> None:
    def read(now: float) -> list[Sample]:
        board.done(_ROUNDS, service.round_at)
        return service.samples(now)

    board.source(read)
    board.expect(_ROUNDS, limit_seconds=max(_LEAST_ROUNDS_SECONDS, 4 * interval_seconds), now=time.monotonic())
