"""One Ray cluster on this machine: its head, its gateway and its pods, as ordered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from deploy.local.child import log_tail
from deploy.local.foreign import launch_head
from deploy.local.launch import ProcessLauncher, pod_environment
from deploy.local.supervision import Role
from deploy.local.supervisor import ChildSpec, Ending, Supervisor
from rayline.clusters import ActualCluster, ClusterOrder, Phase, ProcessFact, Slot
from rayline.errors import RaylineError
from workers.cluster import LocalHead, ray_environment

_POD_GRACE_SECONDS: Final = 12.0
_GATEWAY_GRACE_SECONDS: Final = 10.0
_HEAD_GRACE_SECONDS: Final = 30.0
_ON_ITS_WAY: Final = (Phase.STARTING, Phase.RUNNING)


@dataclass(frozen=True, slots=True)
class ClusterTools:
    """What every cluster of this machine uses. `on_loss` is told each pod that has ended, and
    each cluster whose head has, by name; `on_crash` what nothing
    here can mend."""

    supervisor: Supervisor
    launcher: ProcessLauncher
    on_change: Callable[[], None]
    on_loss: Callable[[str], None]
    on_event: Callable[[str], None]
    on_crash: Callable[[BaseException], None]
    new_head: Callable[..., LocalHead] = LocalHead


@dataclass(slots=True)
class _Head:
    """A head, and the gateway that goes with it. `generation` None: it was started ahead of any order; `address`: empty before it
    was started."""

    name: str
    gateway: str
    process: LocalHead
    token_path: Path
    fact: ProcessFact
    generation: int | None = None
    address: str = ""
    retired: bool = False
    address_known: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Pod:
    name: str
    generation: int
    fact: ProcessFact
    start: asyncio.Task[None] | None = None
    stop: asyncio.Task[None] | None = None


class LocalCluster:
    """Makes the processes of one cluster what the last order says.

    Owns which of them there are and what became of them; each generation has a head, a Ray token and ports of its own, so that
    nothing of an old one can join a new one. The supervisor owns the processes. Never starts a name twice.
    Life: `prepare` (at most once), `apply` any number of times -> `close`.
    """

    def __init__(self, *, name: str, executor: str, tools: ClusterTools) -> None:
        self._name = name
        self._executor = executor
        self._tools = tools
        self._order: ClusterOrder | None = None
        self._heads_made = 0
        self._spare: _Head | None = None
        self._head: _Head | None = None
        self._pods: dict[str, _Pod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def address(self) -> str:
        """`host:port` of the head; empty while there is none."""
        head = self._head
        return head.address if head is not None and head.fact.phase is Phase.RUNNING else ""

    def prepare(self) -> None:
        """Start a head now that the first order will find: it needs nothing that an order would tell."""
        self._spare = self._new_head()

    def apply(self, order: ClusterOrder) -> None:
        """Begin to make what runs as ordered."""
        if self._closing or (self._order is not None and order.revision <= self._order.revision):
            return
        self._order = order
        wanted = order.generation if order.wanted else None
        for pod in list(self._pods.values()):
            if pod.generation != wanted or not (pod.name in order.pods or pod.name in order.leaving):
                self._stop_pod(pod)
        if self._head is not None and self._head.generation != wanted:
            self._retire(self._head)
        if wanted is not None:
            head = self._head
            if head is None or head.generation != wanted:
                head = self._adopt_head(wanted)
            for name, slot in order.pods.items():
                if name not in self._pods:
                    self._start_pod(name, slot, wanted, head)
        self._tools.on_change()

    def actual(self) -> ActualCluster | None:
        """What there is; None before the first order."""
        order, head = self._order, self._head
        if order is None:
            return None
        fact = head.fact if head is not None and head.generation == order.generation else None
        pods = {name: pod.fact for name, pod in sorted(self._pods.items())}
        return ActualCluster(self._name, self._executor, order.revision, order.generation, fact, pods)

    def begin_closing(self) -> None:
        """From now on nothing is started."""
        self._closing = True

    async def close(self) -> None:
        """Until nothing is being started any more; the supervisor ends what was."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._tools.on_crash(error)

    def _log_path(self, name: str) -> Path:
        return self._tools.launcher.folder.logs / f"{name}.log"

    def _new_head(self) -> _Head:
        self._heads_made += 1
        name = f"{self._name}-head-{self._heads_made}"
        token_path = self._tools.launcher.folder.ray / f"{name}.token"
        token_path.parent.mkdir(parents=True, exist_ok=True)
        process = self._tools.new_head(cluster=self._name, token_path=token_path, log_path=self._log_path(name))
        gateway = f"{self._name}-gateway-{self._heads_made}"
        head = _Head(name=name, gateway=gateway, process=process, token_path=token_path, fact=_fact(Phase.STARTING))
        self._spawn(self._run_head(head))
        return head

    async def _run_head(self, head: _Head) -> None:
        begun = time.monotonic()
        spec = ChildSpec(
            name=head.name,
            role=Role.HEAD,
            launch=partial(launch_head, head.process, name=head.name, cluster=self._name, log_path=self._log_path(head.name)),
            cluster=self._name,
            grace_seconds=_HEAD_GRACE_SECONDS,
            on_end=partial(self._head_ended, head),
        )
        try:
            await self._tools.supervisor.start(spec)
            head.address = head.process.address
            head.address_known.set()
            if not self._closing:
                await asyncio.to_thread(head.process.wait_ready)
        except RaylineError as error:
            if head.fact.phase is Phase.STARTING:
                head.fact = _fact(Phase.ENDED, reason=str(error))
            await self._tools.supervisor.stop(head.name)
        else:
            if head.fact.phase is Phase.STARTING and not self._closing:
                head.fact = _fact(Phase.RUNNING)
                self._tools.on_event(f"{head.name} answers at {head.address} ({time.monotonic() - begun:.1f} s)")
        finally:
            head.address_known.set()
            self._tools.on_change()

    def _head_ended(self, head: _Head, ending: Ending) -> None:
        if head.fact.phase is not Phase.ENDED:
            head.fact = _ended(ending)
        if head is self._spare:
            self._spare = None
        elif not head.retired:
            self._tools.on_loss(self._name)
        self._tools.on_change()

    def _adopt_head(self, generation: int) -> _Head:
        head = self._spare or self._new_head()
        self._spare = None
        head.generation = generation
        self._head = head
        self._spawn(self._serve(head))
        return head

    async def _serve(self, head: _Head) -> None:
        """The gateway starts beside its head, and waits for it by itself."""
        await head.address_known.wait()
        if head.fact.phase not in _ON_ITS_WAY or self._closing:
            return
        options = ("gateway", "--cluster", self._name, "--address", head.address)
        launch = partial(
            self._tools.launcher.start,
            head.gateway,
            Role.GATEWAY,
            *options,
            cluster=self._name,
            env=ray_environment(head.token_path),
        )
        spec = ChildSpec(head.gateway, Role.GATEWAY, launch, cluster=self._name, grace_seconds=_GATEWAY_GRACE_SECONDS)
        await self._tools.supervisor.start(spec)
        if head.retired:
            await self._tools.supervisor.stop(head.gateway)

    def _retire(self, head: _Head) -> None:
        """End a head that is not wanted any more, after its pods: they have work to finish."""
        if not head.retired:
            head.retired = True
            if head.fact.phase in _ON_ITS_WAY:
                head.fact = _fact(Phase.STOPPING)
            stops = {pod.stop for pod in self._pods.values() if pod.generation == head.generation and pod.stop is not None}
            self._spawn(self._end_head(head, stops))

    async def _end_head(self, head: _Head, stops: set[asyncio.Task[None]]) -> None:
        await self._tools.supervisor.stop(head.gateway)
        if stops:
            await asyncio.wait(stops)
        await head.address_known.wait()
        await self._tools.supervisor.stop(head.name)

    def _start_pod(self, name: str, slot: Slot, generation: int, head: _Head) -> None:
        pod = _Pod(name=name, generation=generation, fact=_fact(Phase.STARTING))
        self._pods[name] = pod
        if slot.replaces is not None:
            self._tools.on_event(f"{name} replaces {slot.replaces}: {slot.backoff.reason}")
        pod.start = self._spawn(self._run_pod(pod, slot, head))

    async def _run_pod(self, pod: _Pod, slot: Slot, head: _Head) -> None:
        """It starts beside its head, and waits for it by itself."""
        await head.address_known.wait()
        if pod.fact.phase is not Phase.STARTING or self._closing or self._order is None:
            return
        if head.fact.phase not in _ON_ITS_WAY:
            pod.fact = _fact(Phase.ENDED, reason=f"{head.name} is not there")
            return
        zone = () if slot.zone is None else ("--zone", slot.zone)
        options = ("--cluster", self._name, "--pod", pod.name, "--cpus", f"{self._order.cpus_per_pod:g}")
        launch = partial(
            self._tools.launcher.start,
            pod.name,
            Role.POD,
            "agent",
            *options,
            *zone,
            "--address",
            head.address,
            cluster=self._name,
            env={**ray_environment(head.token_path), **pod_environment(self._tools.launcher.folder, pod.name)},
        )
        spec = ChildSpec(
            pod.name, Role.POD, launch, cluster=self._name, grace_seconds=_POD_GRACE_SECONDS, on_end=partial(self._pod_ended, pod)
        )
        try:
            await self._tools.supervisor.start(spec)
        except RaylineError as error:
            pod.fact = _fact(Phase.ENDED, reason=str(error))
        if pod.fact.phase is Phase.STARTING:
            pod.fact = _fact(Phase.RUNNING)
        self._tools.on_change()

    def _pod_ended(self, pod: _Pod, ending: Ending) -> None:
        pod.fact = _ended(ending)
        self._tools.on_loss(pod.name)
        self._forget(pod)
        self._tools.on_change()

    def _stop_pod(self, pod: _Pod) -> None:
        if pod.fact.phase in _ON_ITS_WAY:
            pod.fact = _fact(Phase.STOPPING)
            pod.stop = self._spawn(self._end_pod(pod))
        self._forget(pod)

    async def _end_pod(self, pod: _Pod) -> None:
        if pod.start is not None:
            await asyncio.wait({pod.start})
        await self._tools.supervisor.stop(pod.name)
        if pod.fact.phase is not Phase.ENDED:
            pod.fact = _fact(Phase.ENDED, reason="it was never started")
        self._forget(pod)
        self._tools.on_change()

    def _forget(self, pod: _Pod) -> None:
        """What has ended is told as long as an order names it."""
        order = self._order
        named = order is not None and (pod.name in order.pods or pod.name in order.leaving)
        if pod.fact.phase is Phase.ENDED and not named:
            self._pods.pop(pod.name, None)


def _fact(phase: Phase, reason: str | None = None) -> ProcessFact:
    return ProcessFact(phase=phase, at_ms=round(time.time() * 1000), reason=reason)


def _ended(ending: Ending) -> ProcessFact:
    reason = ending.text
    if ending.noticed:
        reason = "it left after a notice"
    elif ending.failed:
        reason = f"{ending.text}; its log ends: {log_tail(ending.log_path, 1)}"
    return replace(_fact(Phase.ENDED, reason), ran_ms=round(ending.ran_seconds * 1000), noticed=ending.noticed)
