"""A pod's node agent: its first process. Runs Ray as a child, and turns the eviction notice (SIGTERM) into a drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from rayline.errors import BusError
from rayline.reports import NodeReport, NodeState, encode_reports
from rayline.topics import REPORTS
from workers.actor import POD_DIR_VARIABLE
from workers.cluster import make_ray_folder, node_command, own_ray_folder, ray_environment, ray_folder, remove_ray_folder
from workers.pod_actors import PodActor, drain_actor, read_pod_actors
from workers.ports import PortBlock, claim_ports
from workers.sessions import lead_session, signal_session, wait_session_end

POD_LABEL: Final = "rayline-pod"
INCARNATION_LABEL: Final = "rayline-incarnation"
ZONE_LABEL: Final = "rayline-zone"
PUBLISH_SECONDS: Final = 2.0
RAY_STOP_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """What the agent needs of `rayline.bus.Publisher`."""

    async def publish(self, topic: str, *, key: bytes | None, value: bytes | None) -> int: ...


@dataclass(frozen=True, slots=True)
class PodOptions:
    """One pod. `address` is the head's `host:port`; `token_path` holds the cluster's Ray token, `token` admits to its actors;
    `grace_seconds` is the time from notice to SIGKILL. `identity` tells two pods of one name on one machine apart."""

    cluster: str
    pod: str
    address: str
    token_path: Path
    token: str
    num_cpus: float = 1.0
    zone: str | None = None
    grace_seconds: float = 30.0
    identity: str = ""
    resources: str | None = None


class Agent:
    """Owns the pod: its session, ports, folder and `ray start`. Does not own the actors (the gateway places them), nor the bus.

    Life cycle: `run` leads the session, reports STARTING, runs Ray until the notice or Ray's end, drains, reports GONE, and
    leaves nothing of the pod behind.
    """

    def __init__(self, *, options: PodOptions, publisher: Publisher) -> None:
        self._options = options
        self._publisher = publisher
        self._folder = ray_folder(f"{options.identity or options.token_path.resolve()}/{options.cluster}/{options.pod}")
        self._incarnation = time.time_ns() // 1_000_000
        self._seq = 0
        self._noticed = False
        self._wake = asyncio.Event()

    async def run(self) -> int:
        """The exit code: 0 after a notice, 1 when Ray ended by itself."""
        lead_session()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._take_notice)
        make_ray_folder(self._folder)
        own_ray_folder(self._folder, os.getpid())
        ports = claim_ports(str(self._folder))
        ray = self._start_ray(ports)
        try:
            await self._report(NodeState.STARTING, None)
            loop.add_reader(ended := os.pidfd_open(ray.pid), self._wake.set)
            await self._wake.wait()
            loop.remove_reader(ended)
            os.close(ended)
            if not self._noticed:
                await self._report(NodeState.GONE, f"ray ended with exit code {ray.wait()}")
                return 1
            await self._drain()
            await self._report(NodeState.GONE, "evicted")
            return 0
        finally:
            await asyncio.to_thread(self._stop_ray, ray)
            ports.release()
            remove_ray_folder(self._folder)

    def _take_notice(self) -> None:
        self._noticed = True
        self._wake.set()

    def _start_ray(self, ports: PortBlock) -> subprocess.Popen[bytes]:
        options = self._options
        labels = {POD_LABEL: options.pod, INCARNATION_LABEL: str(self._incarnation)}
        if options.zone is not None:
            labels[ZONE_LABEL] = options.zone
        command = node_command(
            f"--address={options.address}",
            f"--num-cpus={options.num_cpus:g}",
            f"--node-ip-address={ports.host}",
            f"--temp-dir={self._folder}",
            f"--labels={','.join(f'{name}={value}' for name, value in labels.items())}",
            *([] if options.resources is None else [f"--resources={options.resources}"]),
            *ports.ray_options(),
        )
        environment = {**os.environ, **ray_environment(options.token_path), POD_DIR_VARIABLE: str(self._folder)}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", env=environment)

    async def _drain(self) -> None:
        """The notice goes out to the lanes (through the bus) and to the actors at the same time; either alone would do."""
        options = self._options
        until = time.monotonic() + max(0.5, options.grace_seconds - RAY_STOP_SECONDS - 1)
        actors = read_pod_actors(self._folder)
        _log.info("notice: pod %s/%s drains %d actors", options.cluster, options.pod, len(actors))
        await asyncio.gather(
            self._report(NodeState.DRAINING, "notice"),
            *(asyncio.to_thread(self._drain_one, actor, until - time.monotonic()) for actor in actors),
        )

    def _drain_one(self, actor: PodActor, timeout_seconds: float) -> None:
        drain_actor(
            actor,
            token=self._options.token,
            timeout_seconds=timeout_seconds,
            on_notice=lambda: _log.info("actor %d takes no more batches", actor.pid),
        )

    async def _report(self, state: NodeState, reason: str | None) -> None:
        options = self._options
        self._seq += 1
        report = NodeReport(
            cluster=options.cluster,
            node=options.pod,
            incarnation=self._incarnation,
            seq=self._seq,
            state=state,
            cpus=options.num_cpus,
            zone=options.zone,
            reason=reason,
        )
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._publisher.publish(REPORTS, key=report.key.encode(), value=encode_reports([report]))
        except (TimeoutError, BusError) as error:
            # The gateway, and the lanes' broken streams, tell the same a little later.
            _log.error("pod %s: report %s was not published: %r", report.key, state.name, error)

    def _stop_ray(self, ray: subprocess.Popen[bytes]) -> None:
        me, session = os.getpid(), os.getsid(0)
        if ray.poll() is None:
            ray.send_signal(signal.SIGTERM)
            wait_session_end(session, timeout_seconds=RAY_STOP_SECONDS, spare=me)
        signal_session(session, signal.SIGKILL, spare=me)
        ray.wait()


async def run_agent(*, options: PodOptions, publisher: Publisher) -> int:
    """Be the first process of a pod until it ends; returns the exit code. Must run in a process of its own."""
    return await Agent(options=options, publisher=publisher).run()
