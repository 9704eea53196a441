"""The process of one lane: what it is told (its app, the nodes) comes from platform topics, what it does is `ingest.lane`."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from ingest.lane import Lane
from rayline.app_spec import AppSpec
from rayline.bus.log import CompactedLog, LogRecord
from rayline.bus.settings import KafkaSettings
from rayline.errors import FormatError, LaunchError, ProducerFenced
from rayline.reports import ActorEndpoint, decode_reports
from rayline.telemetry import open_tracing
from rayline.topics import APPS, REPORTS
from workers.channel import Channel, FlightChannel

_log = logging.getLogger(__name__)

TOKEN_VARIABLE: Final = "RAYLINE_CHANNEL_TOKEN"
EXIT_FENCED: Final = 3
_SPEC_SECONDS: Final = 30.0


def run(app: str, instance: str) -> int:
    """Run one lane until SIGTERM or SIGINT; returns the process's exit code.

    `instance` is the lane's lasting name (static membership): a restart under the same name takes its partitions back.
    Kafka's settings and the channel token come from the environment.
    """
    # Records live for a moment and hold no cycles: the collector would only walk them again and again.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    exit_code = 0
    try:
        asyncio.run(_serve(app, instance, KafkaSettings.from_env(os.environ), os.environ.get(TOKEN_VARIABLE, "")))
    except* ProducerFenced as fenced:
        _log.critical("this lane stops: %s", fenced.exceptions[0])
        exit_code = EXIT_FENCED
    return exit_code


async def _serve(app: str, instance: str, settings: KafkaSettings, token: str) -> None:
    stop = asyncio.Event()
    tracing = open_tracing("lane", os.environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async with (
        CompactedLog(settings=settings, topic=APPS) as apps,
        CompactedLog(settings=settings, topic=REPORTS, from_end=True) as reports,
    ):
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
        )
        async with asyncio.TaskGroup() as tasks:
            watchers = [
                tasks.create_task(_follow(reports, _reports_to(lane)), name="reports"),
                tasks.create_task(_follow(apps, _specs_to(lane, app, stop)), name="apps"),
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


def _reports_to(lane: Lane) -> Callable[[LogRecord], None]:
    def take(record: LogRecord) -> None:
        if record.value is None:
            return
        try:
            lane.heard(decode_reports(record.value))
        except FormatError as error:
            _log.error("a record of %s is left out: %s", REPORTS, error)

    return take


def _specs_to(lane: Lane, app: str, stop: asyncio.Event) -> Callable[[LogRecord], None]:
    def take(record: LogRecord) -> None:
        if record.key != app.encode():
            return
        spec = _spec(record)
        if spec is None:
            _log.warning("app %s was removed", app)
            stop.set()
        else:
            lane.update(spec)

    return take


def _spec(record: LogRecord) -> AppSpec | None:
    if record.value is None:
        return None
    try:
        return AppSpec.from_dict(json.loads(record.value))
    except (FormatError, ValueError) as error:
        raise FormatError(f"the record of app {record.key!r} in {APPS} cannot be read: {error}") from error
