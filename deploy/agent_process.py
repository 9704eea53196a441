"""The process of one pod's agent: what it reports goes to Kafka; everything else is `workers.agent`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Final

from deploy.app_registry import AppRegistry
from deploy.node_environments import open_environments
from deploy.process_environment import (
    INTERRUPTION_FILE_VARIABLE,
    INTERRUPTION_HEADER_VARIABLE,
    INTERRUPTION_URL_VARIABLE,
    POD_GRACE_VARIABLE,
    PRESTOP_PORT_VARIABLE,
    RAY_TOKEN_PATH_VARIABLE,
    required,
)
from rayline.bus import KafkaSettings, Publisher
from rayline.bus.connection import for_ever
from rayline.config import ConfigWatch, NodeValues, ProcessIdentity, Role
from rayline.errors import BusError, ConfigError, RaylineError
from rayline.metrics import MetricsBoard, ProcessMetrics, Sample
from rayline.rollout import SHARE
from rayline.topics import CONFIG
from runtime_env.peers.allocator import give_memory_back
from workers.agent import Agent, PodOptions
from workers.notices import InterruptionEndpoint, InterruptionFile, NoticeSource, OperatorOrder
from workers.output.forwarding import UserOutput
from workers.output.limits import OutputLimits

DEFAULT_GRACE_SECONDS: Final = 5.0
_REQUEST_TIMEOUT_MS: Final = 5_000
_FULFIL_SECONDS: Final = 1.0
_APPS_RETRY_SECONDS: Final = 1.0
_BEATS: Final = "beats"
_LEAST_BEATS_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


async def run(*, cluster: str, pod: str, cpus: float, address: str, zone: str | None = None) -> int:
    """Run the pod until its notice or Ray's end; returns the exit code."""
    give_memory_back()
    options = PodOptions(
        cluster=cluster,
        pod=pod,
        address=address,
        token_path=Path(required(RAY_TOKEN_PATH_VARIABLE)),
        num_cpus=cpus,
        zone=zone,
        grace_seconds=_number(POD_GRACE_VARIABLE, DEFAULT_GRACE_SECONDS),
        prestop_port=int(_number(PRESTOP_PORT_VARIABLE, 0)),
    )
    settings = KafkaSettings.from_env(os.environ)
    # A beat that waits longer says nothing any more.
    publisher = Publisher(settings=settings, client_id=f"rayline-agent-{pod}", request_timeout_ms=_REQUEST_TIMEOUT_MS)
    async with publisher:
        order = OperatorOrder()
        environments = open_environments(os.environ, node=f"{cluster}/{pod}", cores=cpus)
        agent = Agent(
            options=options,
            publisher=publisher,
            sources=[order, *_interruptions()],
            environments=environments,
            output=UserOutput(cluster=cluster, node=pod, publisher=partial(_log_publisher, settings, pod)),
        )
        identity = ProcessIdentity(role=Role.AGENT, cluster=cluster, node=pod)
        async with ProcessMetrics(identity=identity) as metrics:
            _measure(metrics.board, agent)
            watch = _watch_config(settings, identity, agent=agent, order=order, board=metrics.board)
            await watch.start()
            order.begin()
            metrics.tell_by(watch)
            following = {
                asyncio.create_task(watch.run(), name="config"),
                asyncio.create_task(_follow_apps(settings, agent), name="apps"),
            }
            if environments.peering is not None:
                following.add(asyncio.create_task(environments.peering.run(settings), name="peers"))
            try:
                return await agent.run()
            finally:
                if order.ordered:
                    await _fulfil(publisher, f"{cluster}/{pod}")
                for task in following:
                    task.cancel()
                await asyncio.wait(following)


def _measure(board: MetricsBoard, agent: Agent) -> None:
    def read(now: float) -> list[Sample]:
        board.done(_BEATS, agent.beat_reached_at)
        return agent.samples(now)

    board.source(read)


def _watch_config(
    settings: KafkaSettings, identity: ProcessIdentity, *, agent: Agent, order: OperatorOrder, board: MetricsBoard
) -> ConfigWatch:
    def set_cordoned(cordons: NodeValues) -> None:
        agent.set_cordoned(bool(cordons.of(f"{identity.cluster}/{identity.node}")))

    def set_interval(seconds: float) -> None:
        agent.set_interval(seconds)
        board.expect(_BEATS, limit_seconds=max(_LEAST_BEATS_SECONDS, 4 * seconds), now=time.monotonic())

    watch = ConfigWatch(settings=settings, identity=identity)
    watch.on("heartbeat.interval_seconds", set_interval)
    watch.on("cordon", set_cordoned)
    watch.on("drain", order.set)
    watch.on("models", agent.set_models)
    watch.on(SHARE, agent.set_shares)
    watch.on("peers.total_bytes_per_second", agent.set_peers_total)
    watch.on("peers.node_bytes_per_second", agent.set_peers_own)
    for limit in fields(OutputLimits):
        watch.on(f"logs.{limit.name}", partial(_set_limit, agent, limit.name))
    return watch


def _set_limit(agent: Agent, name: str, value: int | bool) -> None:
    agent.tune_output(**{name: value})


def _log_publisher(settings: KafkaSettings, pod: str) -> Publisher:
    """Of its own: beats must not wait behind what users print."""
    return Publisher(settings=settings, client_id=f"rayline-output-{pod}", compression_type="zstd")


async def _follow_apps(settings: KafkaSettings, agent: Agent) -> None:
    """Tell the agent which apps there are, for ever; a broker that is away is asked again."""

    async def follow() -> None:
        async with AppRegistry(settings) as registry:
            async for apps in registry.changes():
                agent.set_apps(list(apps.values()))

    await for_ever(
        RaylineError,
        pause_seconds=_APPS_RETRY_SECONDS,
        tell=lambda error: _log.warning("the apps are not known for a moment: %s", error),
    )(follow)


async def _fulfil(publisher: Publisher, node: str) -> None:
    """The order is carried out: a later pod of the same name must not find it."""
    try:
        async with asyncio.timeout(_FULFIL_SECONDS):
            await publisher.publish(CONFIG, key=f"node/{node}/drain".encode(), value=None)
    except (TimeoutError, BusError) as error:
        _log.warning("the order to drain %s stays in %s: %r", node, CONFIG, error)


def _interruptions() -> list[NoticeSource]:
    """Where the machine's owner announces that it will be taken away, as far as the environment names it."""
    sources: list[NoticeSource] = []
    if path := os.environ.get(INTERRUPTION_FILE_VARIABLE):
        sources.append(InterruptionFile(Path(path)))
    if url := os.environ.get(INTERRUPTION_URL_VARIABLE):
        name, colon, value = os.environ.get(INTERRUPTION_HEADER_VARIABLE, "").partition(":")
        sources.append(InterruptionEndpoint(url, headers={name.strip(): value.strip()} if colon else None))
    return sources


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, f"{default:g}")
    try:
        number = float(text)
    except ValueError as error:
        raise ConfigError(f"{variable} is {text!r}: give a number") from error
    if not 0 <= number < 86_400:
        raise ConfigError(f"{variable} is {text}: give a number from 0 to 86400")
    return number
