"""A pod's node agent: its first process. Runs Ray as a child, reports the node each second, and turns a notice into a drain."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rayline.app_spec import AppSpec
from rayline.config import AppValues
from rayline.metrics import Sample
from rayline.metrics.declared import BEATS_DROPPED, NODE_NOTICES
from rayline.reports import NodeLoad, NodeState
from rayline.rollout import Shares
from runtime_env.node.folder import NodeFolder
from workers.activation import Activator, Prepares
from workers.actor_tally import ActorTally, look_at_actors
from workers.bundle_process import for_ray
from workers.cluster import make_ray_folder, node_command, own_ray_folder, ray_environment, ray_folder, remove_ray_folder
from workers.heartbeat import INTERVAL_SECONDS, Heartbeat
from workers.model_placer import FetchesModels, ModelPlacer
from workers.notices import Notice, NoticeSource, PreStopServer, SignalSource
from workers.output.forwarding import UserOutput
from workers.peering import Peering
from workers.pod_actors import HAND_BACK_SECONDS, PodActor, drain_actor, end_orphans, read_pod_actors, read_pod_work
from workers.pod_folder import NOTICE_MARK, POD_DIR_VARIABLE
from workers.pod_ray import PodRay
from workers.ports import PortBlock, claim_ports
from workers.reporting import Publisher, Reporter
from workers.sampling import Sampler, find_cards
from workers.sessions import lead_session

POD_LABEL: Final = "rayline-pod"
INCARNATION_LABEL: Final = "rayline-incarnation"
ZONE_LABEL: Final = "rayline-zone"
# Of the grace period, for what follows the hand-back: answers leave, GONE is told, Ray ends.
LEAVE_SECONDS: Final = HAND_BACK_SECONDS + 0.3
MIN_HAND_BACK_SECONDS: Final = 0.1
GONE_SECONDS: Final = 2.0
# How long an idle pod waits for the broker to take its notice.
NOTICE_SECONDS: Final = 0.3
# A sample that takes longer (a sick disk) is left out of its beat.
SAMPLE_SECONDS: Final = 0.5
TELL_SECONDS: Final = 30.0
# Ray starts once each environment is ready or failed, or by then: one app's long download keeps the others waiting no longer.
ENVIRONMENTS_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodOptions:
    """One pod. `address` is the head's `host:port`; `token_path` holds the cluster's Ray token; `grace_seconds` is the time from
    notice to SIGKILL. `identity` tells two pods of one name on one machine apart. `prestop_port` 0 takes any free port (it stands
    in the pod's folder)."""

    cluster: str
    pod: str
    address: str
    token_path: Path
    num_cpus: float = 1.0
    zone: str | None = None
    grace_seconds: float = 30.0
    identity: str = ""
    resources: str | None = None
    heartbeat_seconds: float = INTERVAL_SECONDS
    prestop_port: int = 0


@dataclass(frozen=True, slots=True)
class NodeEnvironments:
    """What a pod needs to put environments and models in place: its node's folder, and who carries out the steps; `peering` where
    it shares them with other nodes."""

    folder: NodeFolder
    preparer: Prepares
    models: FetchesModels
    peering: Peering | None = None


class Agent:
    """Owns the pod: its session, ports, folder, Ray node, heartbeat and notice. Does not own the actors (the gateway places
    them), nor the bus.

    Life cycle: `run` leads the session, reports STARTING, puts the apps' environments in place, runs Ray and beats (READY as soon
    as an actor serves) until the first notice or Ray's end, drains, reports GONE, and leaves nothing of the pod behind.
    """

    def __init__(
        self,
        *,
        options: PodOptions,
        publisher: Publisher,
        sources: Sequence[NoticeSource] = (),
        environments: NodeEnvironments | None = None,
        output: UserOutput | None = None,
    ) -> None:
        """`sources` are ways to give notice besides signals and the PreStop call; without `environments`, apps run in the
        platform's own alone, and with their own models; without `output`, what they print stays in Ray's files."""
        self._options = options
        self._output = output
        self._tally = ActorTally()
        self._folder = ray_folder(f"{options.identity or options.token_path.resolve()}/{options.cluster}/{options.pod}")
        self._incarnation = time.time_ns() // 1_000_000
        self._reporter = Reporter(
            cluster=options.cluster,
            node=options.pod,
            incarnation=self._incarnation,
            cpus=options.num_cpus,
            zone=options.zone,
            publisher=publisher,
        )
        self._reporter.interval_ms = round(options.heartbeat_seconds * 1000)
        self._heartbeat = Heartbeat(beat=self._beat, interval_seconds=options.heartbeat_seconds)
        self._sources: tuple[NoticeSource, ...] = (
            SignalSource(),
            PreStopServer(folder=self._folder, port=options.prestop_port),
            *sources,
        )
        self._sampler: Sampler | None = None
        self._sampling: asyncio.Future[NodeLoad] | None = None
        self._ray: PodRay | None = None
        self._notice: Notice | None = None
        self._end: str | None = None
        self._hand_back_at = float("inf")
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()
        self._peering = None if environments is None else environments.peering
        self._activator: Activator | None = None
        self._placer: ModelPlacer | None = None
        self._apps: Sequence[AppSpec] | None = None
        self._shares = Shares()
        if environments is not None:
            self._placer = ModelPlacer(fetcher=environments.models, pod_dir=self._folder)
            self._activator = Activator(folder=environments.folder, preparer=environments.preparer, pod_dir=self._folder)

    def set_apps(self, apps: Sequence[AppSpec]) -> None:
        """All apps of this node: the environments that they need are put in place, beside what runs."""
        self._apps = apps
        self._choose_versions()

    def set_shares(self, values: AppValues) -> None:
        """On which share of its nodes each app's newest version is to run; the others have the one before."""
        self._shares = Shares(values)
        self._choose_versions()

    def set_models(self, values: AppValues) -> None:
        """Which publications of models apps run with; they are put in place beside what runs."""
        if self._placer is not None:
            self._placer.set_models(values)

    def set_peers_total(self, bytes_per_second: int) -> None:
        """What all nodes together may receive of environments and models; 0 for no limit."""
        if self._peering is not None:
            self._peering.set_total_limit(bytes_per_second)

    def set_peers_own(self, bytes_per_second: int) -> None:
        """What this node may move in each direction; 0 for what it measures."""
        if self._peering is not None:
            self._peering.set_own_limit(bytes_per_second)

    def tune_output(self, **limits: int | bool) -> None:
        """Other limits of what is kept of users' output (see `OutputLimits`), from now on."""
        if self._output is not None:
            self._output.tune(**limits)

    def set_interval(self, seconds: float) -> None:
        """A beat each `seconds` from now on; raises ConfigError outside of 0.1 to 60."""
        self._heartbeat.set_interval(seconds)
        self._reporter.interval_ms = round(seconds * 1000)
        self._tell_again()

    def set_cordoned(self, cordoned: bool) -> None:
        """Whether new work shall keep away; told at once."""
        if cordoned != self._reporter.cordoned:
            self._reporter.cordoned = cordoned
            self._tell_again()

    def samples(self, now: float) -> list[Sample]:
        """What it counts, and what its actors do, for its metrics; `now` is monotonic seconds."""
        own = [Sample(BEATS_DROPPED, self._heartbeat.dropped), Sample(NODE_NOTICES, int(self._notice is not None))]
        self._tally.observe(look_at_actors(self._folder), now)
        own += self._tally.samples()
        return own if self._output is None else own + self._output.samples()

    @property
    def beat_reached_at(self) -> float:
        """When the broker last took a beat (monotonic seconds)."""
        return self._heartbeat.reached_at

    async def run(self) -> int:
        """The exit code: 0 after a notice, 1 when Ray ended by itself."""
        lead_session()
        make_ray_folder(self._folder)
        own_ray_folder(self._folder, os.getpid())
        if self._output is not None:
            self._output.start(self._folder, skew_ms=self._reporter.clock_skew_ms)
            self._background(self._output.run(), "user output")
        if self._placer is not None:
            self._placer.begin()
            self._background(self._placer.run(), "models")
        self._sampler = Sampler(session=os.getsid(0), disk=str(self._folder), cards=find_cards())
        sources = [
            self._background(source.run(self.give_notice, self._drained), type(source).__name__) for source in self._sources
        ]
        # In a thread, so that the sources listen before there is anything to drain.
        ports = await asyncio.to_thread(claim_ports, str(self._folder))
        try:
            self._tell(NodeState.STARTING, None)
            ending = [self._background(self._heartbeat.run(), "heartbeat"), *sources]
            if self._activator is not None:
                ending.append(self._background(self._activator.run(), "environments"))
                await self._await_environments(self._activator)
            if self._notice is None:
                self._ray = self._start_ray(ports)
                ending.append(self._background(self._watch_ray(self._ray), "ray node"))
            await self._wake.wait()
            code = await self._leave()
            await _cancel(*ending)
            return code
        finally:
            await _cancel(*self._tasks)
            if self._ray is not None:
                await asyncio.to_thread(self._ray.stop)
            if self._output is not None:
                await self._output.finish()
            ports.release()
            remove_ray_folder(self._folder)

    def give_notice(self, notice: Notice) -> None:
        """The pod will be taken away: drain and end. A later notice can only make the grace period shorter."""
        grace_seconds = self._options.grace_seconds
        if notice.grace_seconds is not None:
            grace_seconds = min(grace_seconds, notice.grace_seconds)
        hand_back_at = time.monotonic() + max(MIN_HAND_BACK_SECONDS, grace_seconds - LEAVE_SECONDS)
        if self._notice is not None and hand_back_at >= self._hand_back_at:
            return
        self._hand_back_at = hand_back_at
        if self._notice is not None:
            _log.info("notice: only %.1f s are left: %s", grace_seconds, notice.reason)
            self._background(self._drain_actors(), "drain sooner")
            return
        self._notice = notice
        self._wake.set()

    def _choose_versions(self) -> None:
        if self._activator is not None and self._apps is not None:
            node = self._reporter.key
            chosen = [replace(self._shares.spec_on(spec, node), prefetch=spec.prefetch) for spec in self._apps]
            kept_back = {spec.name for spec in self._apps if not self._shares.takes_newest(spec, node)}
            self._activator.set_apps(chosen, kept_back=kept_back)

    async def _await_environments(self, activator: Activator) -> None:
        """Until what the apps need is in place, or failed for now; until a notice; or until it is time to go on without."""
        settled = asyncio.ensure_future(activator.settled())
        noticed = asyncio.ensure_future(self._wake.wait())
        waiting: set[asyncio.Future[Any]] = {settled, noticed}
        await asyncio.wait(waiting, timeout=ENVIRONMENTS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(settled, noticed)

    async def _watch_ray(self, ray: PodRay) -> None:
        self._end = await ray.wait_end()
        self._wake.set()

    async def _leave(self) -> int:
        if self._notice is None:
            reason = self._end
            _log.error("pod %s: %s", self._reporter.key, reason)
            await self._reporter.tell(NodeState.GONE, reason, until=time.monotonic() + GONE_SECONDS)
            return 1
        await self._drain(self._notice)
        self._drained.set()
        await self._reporter.tell(NodeState.GONE, f"evicted: {self._notice.reason}", until=time.monotonic() + GONE_SECONDS)
        return 0

    async def _drain(self, notice: Notice) -> None:
        """The notice goes out to the lanes (through the bus) and to the actors at the same time; either alone would do."""
        (self._folder / NOTICE_MARK).touch()
        telling = self._tell(NodeState.DRAINING, notice.reason)
        await self._drain_actors()
        # Everybody may see the notice, but GONE says more: a broker that is away gets no more of the grace period for it.
        await asyncio.wait({telling}, timeout=NOTICE_SECONDS)
        telling.cancel()

    async def _drain_actors(self) -> None:
        actors = read_pod_actors(self._folder)
        left = self._hand_back_at - time.monotonic()
        _log.info("notice: pod %s drains %d actors within %.1f s", self._reporter.key, len(actors), left)
        loop = asyncio.get_running_loop()
        # A thread for each: nobody's notice may wait for another actor's batch.
        threads = ThreadPoolExecutor(max_workers=max(1, len(actors)), thread_name_prefix="rayline-drain")
        await asyncio.gather(*(loop.run_in_executor(threads, self._drain_one, actor) for actor in actors))
        threads.shutdown(wait=False)

    def _drain_one(self, actor: PodActor) -> None:
        drain_actor(
            actor,
            hand_back_seconds=self._hand_back_at - time.monotonic(),
            on_notice=lambda: _log.info("actor %d takes no more batches", actor.pid),
        )

    def _tell(self, state: NodeState, reason: str | None) -> asyncio.Task[object]:
        until = time.monotonic() + TELL_SECONDS if self._notice is None else self._hand_back_at
        return self._background(self._reporter.tell(state, reason, until=until), f"tell {state.name}")

    def _tell_again(self) -> None:
        """Before the node first reported there is nothing to say again."""
        if self._sampler is not None:
            self._background(self._reporter.tell_again(until=time.monotonic() + TELL_SECONDS), "tell again")

    async def _beat(self) -> None:
        end_orphans(str(self._folder))
        work = read_pod_work(str(self._folder))
        if work.actors and self._reporter.state is NodeState.STARTING:
            self._tell(NodeState.READY, None)
        load = await self._sample()
        if load is not None:
            environments = () if self._activator is None else self._activator.told(time.monotonic())
            load = replace(
                load,
                jobs_in_flight=work.jobs,
                clock_skew_ms=self._reporter.clock_skew_ms(),
                environments=environments,
                models=() if self._placer is None else self._placer.told(),
            )
        await self._reporter.beat(load, peer=None if self._peering is None else self._peering.presence())

    async def _sample(self) -> NodeLoad | None:
        """In a thread, because a sick disk may hold it up; None while the sample before is still held up, or where it fails."""
        assert self._sampler is not None
        if self._sampling is None or self._sampling.done():
            self._sampling = asyncio.ensure_future(asyncio.to_thread(self._sampler.sample, time.monotonic()))
        try:
            async with asyncio.timeout(SAMPLE_SECONDS):
                return await asyncio.shield(self._sampling)
        except TimeoutError:
            return None
        except OSError as error:
            _log.warning("pod %s: no sample for this beat: %s", self._reporter.key, error)
            return None

    def _background(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[object]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._background_ended)
        return task

    def _background_ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The pod goes on: it has other ways to take a notice, and a lost heartbeat takes it out of rotation.
            _log.error("pod %s: %s ended", self._reporter.key, task.get_name(), exc_info=error)

    def _start_ray(self, ports: PortBlock) -> PodRay:
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
        environment = {**for_ray(os.environ), **ray_environment(options.token_path), POD_DIR_VARIABLE: str(self._folder)}
        return PodRay(command=command, environment=environment)


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def run_agent(*, options: PodOptions, publisher: Publisher, sources: Sequence[NoticeSource] = ()) -> int:
    """Be the first process of a pod until it ends; returns the exit code. Must run in a process of its own."""
    return await Agent(options=options, publisher=publisher, sources=sources).run()
