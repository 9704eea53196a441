"""The process of one lane: what it is told (its app, the nodes) comes from platform topics, what it does is `ingest.lane`."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ingest.lane import REFRESH_SECONDS, Lane
from ingest.open_transactions import name_producers
from ingest.tuning import LaneTuning, manifest_values
from rayline.app_spec import AppSpec
from rayline.bus.log import CompactedLog, LogRecord, Publisher
from rayline.bus.settings import KafkaSettings
from rayline.config import ConfigWatch, ProcessIdentity, Role
from rayline.errors import BusError, FormatError, LaunchError, ProducerFenced
from rayline.lane_record import REPEAT_SECONDS, encode_lane_record
from rayline.metrics import ProcessMetrics
from rayline.metrics.process import metrics_wanted
from rayline.reports import ActorEndpoint
from rayline.telemetry import open_tracing
from rayline.topics import APPS, VIEW
from rayline.view_record import DEFAULT_GROUP
from scheduler.listener import Heard, Listener
from scheduler.node_feed import NodeFeed
from workers.channel import Channel, FlightChannel

_log = logging.getLogger(__name__)

TOKEN_VARIABLE: Final = "RAYLINE_CHANNEL_TOKEN"
GROUP_VARIABLE: Final = "RAYLINE_RESOURCE_GROUP"
EXIT_FENCED: Final = 3
_SPEC_SECONDS: Final = 30.0


def run(app: str, instance: str) -> int:
    """Run one lane until SIGTERM or SIGINT; returns the process's exit code.

    `instance` is the lane's lasting name (static membership): a restart under the same name takes its partitions back.
    Kafka's settings, the channel token and the group of resources that it listens to come from the environment.
    """
    # Records live for a moment and hold no cycles: the collector would only walk them again and again.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    exit_code = 0
    try:
        token, group = os.environ.get(TOKEN_VARIABLE, ""), os.environ.get(GROUP_VARIABLE, DEFAULT_GROUP)
        asyncio.run(_serve(app, instance, KafkaSettings.from_env(os.environ), token, group))
    except* ProducerFenced as fenced:
        _log.critical("this lane stops: %s", fenced.exceptions[0])
        exit_code = EXIT_FENCED
    return exit_code


async def _serve(app: str, instance: str, settings: KafkaSettings, token: str, group: str) -> None:
    stop = asyncio.Event()
    tracing = open_tracing("lane", os.environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async with CompactedLog(settings=settings, topic=APPS) as apps:
        spec = await _first_spec(apps, app)

        def open_channel(endpoint: ActorEndpoint) -> Channel:
            return FlightChannel(endpoint, app=endpoint.app, version=endpoint.version, token=token, loop=loop)

        lane = Lane(
            settings=settings,
            spec=spec,
            instance=instance,
            channels=open_channel,
            result_partitions=spec.partitions,
            tracing=tracing,
            metered=metrics_wanted(os.environ),
        )
        identity = ProcessIdentity(role=Role.LANE, app=app, name=instance)
        watch = ConfigWatch(settings=settings, identity=identity, base=manifest_values(spec))
        tuning = LaneTuning(lane=lane, spec=spec, tracing=tracing)
        tuning.wire(watch)
        await watch.start()

        def take(heard: Heard) -> None:
            lane.heard(heard.reports, at=heard.at, ears=heard.ears)

        nodes = NodeFeed(settings=settings, listener=Listener(groups=(group,)), take=take, client_id=f"{instance}-nodes")
        async with ProcessMetrics(identity=identity) as metrics, nodes, asyncio.TaskGroup() as tasks:
            metrics.board.source(lane.samples)
            metrics.board.stalls_from(lane.stalls)
            metrics.board.stalls_from(lane.unheard)
            metrics.board.stalls_from(lane.closed)
            metrics.tell_by(watch)
            watchers = [
                tasks.create_task(nodes.run(), name="nodes"),
                tasks.create_task(_notice_silence(lane), name="silence"),
                tasks.create_task(_tell_weights(lane, settings, instance), name="weights"),
                tasks.create_task(_follow(apps, _specs_to(tuning, watch, app, stop)), name="apps"),
                tasks.create_task(watch.run(), name="config"),
                tasks.create_task(name_producers(lane, settings), name="open transactions"),
            ]
            await lane.run(stop, on_ready=lambda: _log.info("lane %s is ready", instance))
            for watcher in watchers:
                watcher.cancel()
    if tracing is not None:
        tracing.close()


async def _first_spec(apps: CompactedLog, app: str) -> AppSpec:
    """The newest spec of the app; waits a moment for a deployment that is just being written."""
    found: AppSpec | None = None
    try:
        async with asyncio.timeout(_SPEC_SECONDS):
            while found is None or not apps.caught_up.is_set():
                for record in await apps.getmany(timeout_ms=100):
                    if record.key == app.encode():
                        found = _spec(record)
    except TimeoutError as error:
        raise LaunchError(f"app {app!r} is not deployed: `rayline deploy` it first") from error
    return found


async def _follow(log: CompactedLog, take: Callable[[LogRecord], Awaitable[None] | None]) -> None:
    async for record in log:
        take(record)


async def _notice_silence(lane: Lane) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        lane.heard(())


async def _tell_weights(lane: Lane, settings: KafkaSettings, instance: str) -> None:
    """What `rayline nodes` and `rayline explain node` show of this lane: when it differs from what was told last, and again
    from time to time."""
    told, told_at = b"", 0.0
    async with Publisher(settings=settings, client_id=f"{instance}-weights") as publisher:
        while True:
            looked_at = time.monotonic()
            record = lane.explain_nodes()
            value = encode_lane_record(record)
            if value != told or time.monotonic() - told_at > REPEAT_SECONDS:
                try:
                    await publisher.publish(VIEW, key=record.key, value=value)
                    told, told_at = value, time.monotonic()
                except BusError as error:
                    _log.warning("the weights were not told: %s", error)
            await lane.weights_due(looked_at)


def _specs_to(tuning: LaneTuning, watch: ConfigWatch, app: str, stop: asyncio.Event) -> Callable[[LogRecord], None]:
    def take(record: LogRecord) -> None:
        if record.key != app.encode():
            return
        spec = _spec(record)
        if spec is None:
            _log.warning("app %s was removed", app)
            stop.set()
        else:
            tuning.deploy(spec, watch)

    return take


def _spec(record: LogRecord) -> AppSpec | None:
    if record.value is None:
        return None
    try:
        return AppSpec.from_dict(json.loads(record.value))
    except (FormatError, ValueError) as error:
        raise FormatError(f"the record of app {record.key!r} in {APPS} cannot be read: {error}") from error
