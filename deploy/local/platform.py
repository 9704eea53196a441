"""The platform on one machine, as an object: what `up`, the demo, chaos, bench and tests drive."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import uuid4

import psutil

from deploy.broker.base import Broker
from deploy.broker.choice import choose_broker
from deploy.broker.local import LocalKafka
from deploy.local.child import ProcessRecord, log_tail
from deploy.local.control import Control
from deploy.local.executor import LocalExecutor
from deploy.local.foreign import launch_broker
from deploy.local.lanes import Lanes
from deploy.local.launch import ProcessLauncher, rayline_command
from deploy.local.plan import PlatformPlan, PodInfo
from deploy.local.services import launch_lane, start_console, start_keepers, start_resources
from deploy.local.startup_log import StartupLog
from deploy.local.state import PlatformState, StateFolder, new_token
from deploy.local.supervision import Role
from deploy.local.supervisor import ChildSpec, Supervisor
from deploy.local.teardown import clean_up
from deploy.node_watch import NodeWatch, serving_nodes
from rayline.bus import KafkaSettings, ensure_topics
from rayline.errors import LaunchError
from rayline.topics import platform_topics

__all__ = ["LocalPlatform", "PlatformPlan", "PodInfo", "rayline_command"]

READY_SECONDS: Final = 180.0
CONSOLE_PORT: Final = 8440
_BROKER_GRACE_SECONDS: Final = 30.0
# The reverse order of the start; what stands together ends together.
_ENDING: Final = ((Role.KEEPER, Role.LANE, Role.CONSOLE), (Role.RESOURCE, Role.GATEWAY), (Role.POD,), (Role.HEAD,))


class LocalPlatform:
    """Broker, keepers, resources, clusters and lanes as child processes of this one.

    Owns the state folder's lock, the broker (where it is ours), every child process, and the readers of what they report. Does
    not own apps (they are what `rayline.apps` says), nor which clusters and pods there are: a keeper orders them, through Kafka.

    Life: `start` (lock, leftovers, heads ahead of their orders, broker, topics, keepers, what is wanted) -> any use -> `stop`
    (the reverse, broker and lock last); also an async context manager. `failure` is done when the platform cannot go on.
    """

    def __init__(self, plan: PlatformPlan, *, log: StartupLog | None = None) -> None:
        self._plan = plan
        self._say = log or StartupLog(quiet=True)
        self.folder = StateFolder(plan.state_dir)
        self._run_id = uuid4().hex
        self._channel_token = new_token()
        self._broker: Broker | None = None
        self._supervisor = Supervisor(on_change=self._write_state, on_event=self._say.say, on_crash=self._fail)
        self._launcher = ProcessLauncher(folder=self.folder, run_id=self._run_id, channel_token=self._channel_token)
        self._executor = LocalExecutor(
            identity=self._run_id,
            supervisor=self._supervisor,
            launcher=self._launcher,
            on_loss=self._lost,
            on_event=self._say.say,
            on_crash=self._fail,
        )
        self._control: Control | None = None
        self._task: asyncio.Task[None] | None = None
        self._console: str | None = None
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
        return self._running_control().nodes

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
        # A head needs neither Kafka nor an order to start, and is what takes longest.
        self._executor.prepare([cluster.cluster for cluster in self._plan.desired()])
        await self._start_broker()
        await self._start_topics_and_readers()
        with self._say.step(f"{self._plan.clusters} Ray cluster(s) of {self._plan.pods_per_cluster} pod(s)") as step:
            await self._start_control()
            await self.wait_pods_ready()
            step.done(f"{len(self.pods())} pods ready")
        if self._plan.console:
            self._console = await start_console(self._supervisor, self._launcher, port=CONSOLE_PORT)
            self._say.say(f"console: {self._console}")
        self._ready = True
        self._write_state()

    async def stop(self) -> None:
        """End everything in the reverse order of its start; safe after a failed start, and more than once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._executor.begin_closing()
        self._supervisor.begin_closing()
        for roles in _ENDING:
            await asyncio.gather(*(self._supervisor.stop_role(role) for role in roles))
        if self._control is not None:
            await self._control.close()
            self._control = None
        await self._supervisor.close()
        await self._executor.close()
        # What was being started when the end began is there only now.
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
        ready = {report.node for report in self._control.nodes.joined()} if self._control is not None else set()
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
        book = self._running_control().book

        def complete() -> bool:
            ready = Counter(pod.cluster for pod in self.pods() if pod.ready)
            return all(ready[want.cluster] >= want.pods for want in book.desired.values())

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
        roles = (Role.KEEPER, Role.HEAD, Role.GATEWAY, Role.POD)
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
        self._launcher.kafka = self._broker.settings
        self.folder.write_secrets(channel_token=self._channel_token, kafka=self._broker.settings.to_env())
        self._write_state()

    async def _start_topics_and_readers(self) -> None:
        with self._say.step("topics") as step:
            # Keepers see to their topics themselves, and their start takes as long as the rest of this.
            await start_keepers(self._supervisor, self._launcher, self._plan.keepers)
            differences = await ensure_topics(self.settings, platform_topics())
            self._control = Control(self.settings, say=self._say)
            await self._control.start()
            step.done("ready" if not differences else "; ".join(map(str, differences)))

    async def _start_control(self) -> None:
        control = self._running_control()
        await control.want(self._plan.desired())
        lanes = Lanes(
            registry=control.registry,
            supervisor=self._supervisor,
            per_app=self._plan.lanes_per_app,
            launch_lane=partial(launch_lane, self._launcher),
            on_event=self._say.say,
        )
        self._task = asyncio.create_task(control.run(executor=self._executor, lanes=lanes), name="control")
        self._task.add_done_callback(self._control_ended)
        await start_resources(self._supervisor, self._launcher, self._plan.resources)

    def _running_control(self) -> Control:
        if self._control is None:
            raise LaunchError("the platform is not started")
        return self._control

    def _lost(self, name: str) -> None:
        if self._control is not None:
            self._control.lost(name)

    def _write_state(self) -> None:
        if not self._locked:
            return
        me = psutil.Process()
        self.folder.write(
            PlatformState(
                run_id=self._run_id,
                launcher=ProcessRecord(name="launcher", role="launcher", pid=me.pid, started=me.create_time()),
                bootstrap_servers=self._launcher.kafka.bootstrap_servers if self._launcher.kafka is not None else "",
                ready=self._ready,
                clusters=self._executor.addresses(),
                console=self._console,
                processes=self._supervisor.records(),
            )
        )

    def _control_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)
