"""The platform on one machine, as an object: what `up`, the demo, chaos, bench and tests drive."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil

from deploy.app_registry import AppRegistry
from deploy.broker.base import Broker
from deploy.broker.choice import choose_broker
from deploy.broker.local import LocalKafka
from deploy.local.child import RUN_ID_VARIABLE, Child, ProcessRecord, log_tail
from deploy.local.cluster import Cluster
from deploy.local.foreign import launch_broker
from deploy.local.lanes import Lanes
from deploy.local.startup_log import StartupLog
from deploy.local.state import PlatformState, StateFolder, new_token
from deploy.local.supervision import Action, Role, Step
from deploy.local.supervisor import ChildSpec, Supervisor
from deploy.local.teardown import clean_up
from deploy.node_watch import NodeWatch, serving_nodes
from deploy.process_environment import CHANNEL_TOKEN_VARIABLE, LOG_LEVEL_VARIABLE
from rayline.bus import KafkaSettings, Publisher, ensure_topics
from rayline.errors import LaunchError
from rayline.reports import NodeState, encode_reports
from rayline.telemetry import TRACE_FILE_VARIABLE
from rayline.topics import REPORTS, platform_topics
from workers.cluster import ray_environment

_log = logging.getLogger(__name__)

READY_SECONDS: Final = 180.0
_BROKER_GRACE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class PlatformPlan:
    """What should run. `kafka` None: a broker of our own."""

    state_dir: Path
    clusters: int = 2
    pods_per_cluster: int = 2
    cpus_per_pod: float = 1
    lanes_per_app: int = 1
    kafka: KafkaSettings | None = None


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A running pod. `ready`: its cluster's gateway sees it and can place actors there."""

    name: str
    cluster: str
    pid: int
    ready: bool


class LocalPlatform:
    """Broker, clusters and lanes as child processes of this one.

    Owns the state folder's lock, the broker (where it is ours), every child process, and the reader of node reports. Does not
    own apps: they are what `rayline.apps` says.

    Life: `start` (lock, leftovers, broker, topics, lanes and clusters together) -> any use -> `stop` (lanes, gateways, pods,
    heads, broker, lock); also an async context manager. `failure` is done when the platform cannot go on.
    """

    def __init__(self, plan: PlatformPlan, *, log: StartupLog | None = None) -> None:
        self._plan = plan
        self._say = log or StartupLog(quiet=True)
        self.folder = StateFolder(plan.state_dir)
        self._run_id = uuid4().hex
        self._channel_token = new_token()
        self._broker: Broker | None = None
        self._supervisor = Supervisor(act=self._act, on_change=self._write_state, on_event=self._say.say, on_crash=self._fail)
        self._clusters: dict[str, Cluster] = {}
        self._watch: NodeWatch | None = None
        self._publisher: Publisher | None = None
        self._registry: AppRegistry | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = False
        self._locked = False
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> LocalPlatform:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def started(self) -> bool:
        """Whether there is anything to stop: the folder's lock is ours."""
        return self._locked

    @property
    def settings(self) -> KafkaSettings:
        """How to reach Kafka; raises LaunchError before `start`."""
        if self._broker is None:
            raise LaunchError("the platform is not started")
        return self._broker.settings

    @property
    def broker(self) -> Broker:
        """The broker in use; raises LaunchError before `start`."""
        if self._broker is None:
            raise LaunchError("the platform is not started")
        return self._broker

    @property
    def nodes(self) -> NodeWatch:
        """The merged node reports; raises LaunchError before `start`."""
        if self._watch is None:
            raise LaunchError("the platform is not started")
        return self._watch

    @property
    def channel_token(self) -> str:
        return self._channel_token

    async def start(self) -> None:
        """Bring everything up and wait until every pod is ready.

        Raises:
            LaunchError: another launcher runs here, or a part does not come up (with the end of its log).
        """
        self.folder.lock()
        self._locked = True
        await self._clear_leftovers()
        await self._start_broker()
        await self._start_topics_and_readers()
        with self._say.step(f"{self._plan.clusters} Ray cluster(s) of {self._plan.pods_per_cluster} pod(s)") as step:
            await self._start_clusters()
            step.done(f"{len(self.pods())} pods ready")
        self._ready = True
        self._write_state()

    async def stop(self) -> None:
        """End everything in the reverse order of its start; safe after a failed start, and more than once."""
        await self._end_tasks()
        self._supervisor.begin_closing()
        for role in (Role.LANE, Role.GATEWAY, Role.POD, Role.HEAD):
            await self._supervisor.stop_role(role)
        if self._registry is not None:
            await self._registry.__aexit__()
            self._registry = None
        if self._watch is not None:
            await self._watch.close()
            self._watch = None
        if self._publisher is not None:
            await self._publisher.close()
            self._publisher = None
        await self._supervisor.close()
        if self._broker is not None:
            await self._broker.stop()
            self._broker = None
        if self._locked:
            self._locked = False
            state = self.folder.read()
            if state is not None:
                # A head that was killed leaves processes that lost their parent before anybody could find them below it.
                await asyncio.to_thread(clean_up, state)
            self.folder.clear()
            self.folder.unlock()
        if not self.failure.done():
            self.failure.cancel()

    async def hurry(self) -> None:
        """SIGKILL for every child at once: for a person who cannot wait for `stop`, which still has to end."""
        self._supervisor.begin_closing()
        await asyncio.gather(*(self._supervisor.child(record.name).kill() for record in self.processes()))

    def pods(self) -> list[PodInfo]:
        """The pods that run at this moment, by name."""
        ready = {report.node for report in self._watch.joined()} if self._watch is not None else set()
        return sorted(
            (
                PodInfo(name=record.name, cluster=record.cluster or "", pid=record.pid, ready=record.name in ready)
                for record in self._supervisor.records()
                if record.role == Role.POD
            ),
            key=lambda pod: pod.name,
        )

    def processes(self) -> list[ProcessRecord]:
        """Every process that is kept alive here, the broker too where it is ours (`kafka`)."""
        return self._supervisor.records()

    def process(self, name: str) -> ProcessRecord:
        """A running process by its name; raises LaunchError when there is none."""
        return self._supervisor.child(name).record

    async def evict(self, pod: str, *, grace_seconds: float = 10.0) -> None:
        """Take a pod away: SIGTERM, grace, SIGKILL; returns when it is gone. A replacement starts by itself."""
        await self._supervisor.evict(pod, grace_seconds=grace_seconds)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process (SIGKILL, SIGSTOP, …) as an accident would; supervision does the rest."""
        self._supervisor.child(name).signal(number)

    def kill(self, name: str) -> None:
        """`kill -9` one process."""
        self.signal(name, signal.SIGKILL)

    async def wait_pods_ready(self, *, timeout_seconds: float = READY_SECONDS) -> None:
        """Until every cluster has all its pods ready; raises LaunchError when that takes too long."""
        wanted = self._plan.pods_per_cluster

        def complete() -> bool:
            pods = self.pods()
            return all(sum(pod.ready for pod in pods if pod.cluster == name) >= wanted for name in self._clusters)

        await self._wait_nodes(complete, "all pods to be ready", timeout_seconds)

    async def wait_app_ready(
        self, app: str, *, version: str | None = None, nodes: int = 1, timeout_seconds: float = 120.0
    ) -> None:
        """Until actors of the app are ready on so many nodes."""

        def served() -> bool:
            return len(serving_nodes(self.nodes, app, version)) >= nodes

        await self._wait_nodes(served, f"{app} to be ready on {nodes} node(s)", timeout_seconds)

    async def _wait_nodes(self, condition: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.nodes.wait_until(condition)
        except TimeoutError as error:
            raise LaunchError(
                f"waited {timeout_seconds:g} s for {what}; running: {', '.join(r.name for r in self.processes()) or 'nothing'}; "
                f"logs are in {self.folder.logs}\n{self._log_tails()}"
            ) from error

    def _log_tails(self) -> str:
        roles = (Role.HEAD, Role.GATEWAY, Role.POD)
        records = [record for record in self._supervisor.records() if record.role in roles]
        return "\n".join(f"--- {record.name}\n{log_tail(self.folder.logs / f'{record.name}.log', 5)}" for record in records)

    async def _clear_leftovers(self) -> None:
        state = self.folder.read()
        if state is None:
            return
        killed = await asyncio.to_thread(clean_up, state)
        self.folder.clear()
        if killed:
            self._say.say(f"ended what a killed launcher left behind: {', '.join(killed)}")

    async def _start_broker(self) -> None:
        with self._say.step("Kafka") as step:
            self._broker = choose_broker(data_dir=self.folder.broker_data, external=self._plan.kafka)
            if isinstance(self._broker, LocalKafka):
                launch = partial(launch_broker, self._broker)
                await self._supervisor.start(
                    ChildSpec(name="kafka", role=Role.BROKER, launch=launch, grace_seconds=_BROKER_GRACE_SECONDS)
                )
            else:
                await self._broker.start()
            step.done(self._broker.describe())
        self.folder.write_secrets(channel_token=self._channel_token, kafka=self._broker.settings.to_env())
        self._write_state()

    async def _start_topics_and_readers(self) -> None:
        with self._say.step("topics") as step:
            differences = await ensure_topics(self.settings, platform_topics())
            self._publisher = Publisher(settings=self.settings, client_id="rayline-launcher")
            await self._publisher.start()
            self._watch = NodeWatch(self.settings)
            await self._watch.start()
            self._registry = AppRegistry(self.settings)
            await self._registry.__aenter__()
            step.done("ready" if not differences else "; ".join(map(str, differences)))
        lanes = Lanes(
            registry=self._registry,
            supervisor=self._supervisor,
            per_app=self._plan.lanes_per_app,
            launch_lane=self._launch_lane,
            on_event=self._say.say,
        )
        self._tasks.add(self._background(lanes.run(), "lanes"))

    async def _start_clusters(self) -> None:
        for number in range(1, self._plan.clusters + 1):
            name = f"c{number}"
            self._clusters[name] = Cluster(
                name=name,
                token_path=self.folder.ray / f"{name}.token",
                log_path=self.folder.logs / f"{name}-head.log",
                pods=self._plan.pods_per_cluster,
                supervisor=self._supervisor,
                launch=self._launch_in_cluster,
                cpus_per_pod=self._plan.cpus_per_pod,
            )
        async with asyncio.TaskGroup() as group:
            for cluster in self._clusters.values():
                group.create_task(self._build(cluster))
        await self.wait_pods_ready()

    async def _build(self, cluster: Cluster) -> None:
        with self._say.step(f"cluster {cluster.name}: head") as step:
            await cluster.build()
            step.done(f"at {cluster.address}, starting its gateway and pods")

    async def _act(self, action: Action) -> None:
        cluster = self._clusters[action.cluster or ""]
        if action.step is Step.REPLACE_POD:
            await self._announce_gone([action.name])
            name = await cluster.replace_pod()
            if name is not None:
                self._say.say(f"{name} replaces {action.name}")
        elif action.step is Step.REBUILD_CLUSTER:
            await self._announce_gone(await cluster.discard())
            await self._build(cluster)

    async def _announce_gone(self, pods: list[str]) -> None:
        """Tell lanes at once what silence would tell them in seconds."""
        known = {node.report.node: node.report for node in self.nodes.nodes() if node.report.node in pods}
        gone = [
            replace(report, state=NodeState.GONE, seq=report.seq + 1, actors=None, reason="its process ended")
            for report in known.values()
        ]
        if gone and self._publisher is not None:
            await self._publisher.publish(REPORTS, key=gone[0].key.encode(), value=encode_reports(gone))

    async def _launch_lane(self, app: str, name: str) -> Child:
        return await self._launch(name, Role.LANE, None, {}, "lane", "--app", app, "--instance", name)

    async def _launch_in_cluster(self, name: str, role: Role, cluster: Cluster, *arguments: str) -> Child:
        return await self._launch(name, role, cluster.name, ray_environment(cluster.token_path), *arguments)

    async def _launch(self, name: str, role: Role, cluster: str | None, env: dict[str, str], *arguments: str) -> Child:
        return await Child.start(
            name=name,
            role=role,
            command=rayline_command(*arguments),
            env={**self._environment(), **env},
            log_path=self.folder.logs / f"{name}.log",
            cluster=cluster,
        )

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name == TRACE_FILE_VARIABLE or not name.startswith(("RAYLINE_", "RAY_"))
        }
        return {
            **inherited,
            **self.settings.to_env(),
            CHANNEL_TOKEN_VARIABLE: self._channel_token,
            RUN_ID_VARIABLE: self._run_id,
            LOG_LEVEL_VARIABLE: os.environ.get(LOG_LEVEL_VARIABLE, "INFO"),
            "PYTHONUNBUFFERED": "1",
        }

    def _write_state(self) -> None:
        if not self._locked or self._broker is None:
            return
        me = psutil.Process()
        self.folder.write(
            PlatformState(
                run_id=self._run_id,
                launcher=ProcessRecord(name="launcher", role="launcher", pid=me.pid, started=me.create_time()),
                bootstrap_servers=self._broker.settings.bootstrap_servers,
                ready=self._ready,
                clusters={name: cluster.address for name, cluster in self._clusters.items()},
                processes=self._supervisor.records(),
            )
        )

    def _background(self, work: object, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]
        task.add_done_callback(self._background_ended)
        return task

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def rayline_command(*arguments: str) -> list[str]:
    """A `rayline` process of this very installation; -P: a user's own `deploy` package in the working folder stays out."""
    return [sys.executable, "-P", "-m", "deploy.cli", *arguments]
