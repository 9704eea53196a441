"""Carries out a schedule: finds whom each fault strikes, and does it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psutil

from deploy.chaos.effects.base import Unavailable, send
from deploy.chaos.effects.cpu import neighbour, throttled
from deploy.chaos.effects.disk import disk_full
from deploy.chaos.effects.network import Disturbance, PodNetwork
from deploy.chaos.load import Load
from deploy.chaos.plan import NETWORK_KINDS, FaultSpec, Kind, Pick, Target
from deploy.chaos.schedule import Fault, choose, spread
from deploy.chaos.site import Candidate, Site
from deploy.local.foreign import process_ended
from workers.sessions import signal_session

NO_TARGET_SECONDS: Final = 30.0
NEEDS_SECONDS: Final = 120.0
BUSY_SECONDS: Final = 2.0
_BUSY_RETRY_SECONDS: Final = 0.002
_RETRY_SECONDS: Final = 0.05


@dataclass(slots=True)
class Stroke:
    """A fault as it happened (epoch milliseconds). `session` is the struck process's id, which for a pod names its session.

    `until_ms` is when it was undone. `skipped` says why it did not happen. `family` is what belonged to a killed cluster.
    """

    at_ms: float
    kind: Kind
    target: str
    role: Target
    session: int = 0
    cluster: str | None = None
    until_ms: float | None = None
    how: str = ""
    skipped: str | None = None
    family: list[psutil.Process] = field(default_factory=list)


class FaultInjector:
    """Strikes the processes of one platform at their moments.

    Owns the list of what it did, and whatever it did until it is undone. Does not repair: the platform's own supervision does.
    Life: `run` until the schedule is over; frozen processes are woken also when it is cancelled.
    """

    def __init__(
        self,
        *,
        site: Site,
        load: Load,
        network: PodNetwork | None,
        on_stroke: Callable[[Stroke], None],
        scale: Callable[[str, int], Awaitable[None]],
    ) -> None:
        """`scale` orders that a cluster has so many pods."""
        self._scale = scale
        self._site = site
        self._load = load
        self._network = network
        self._on_stroke = on_stroke
        self._struck: set[int] = set()
        self._members: dict[int, list[int]] = {}
        self._orderly = {target: asyncio.Lock() for target in Target}
        self.strokes: list[Stroke] = []

    async def run(self, schedule: list[Fault]) -> None:
        """Carry out every fault at its second from now, or later where it has to wait for pods."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                group.create_task(self._strike_at(fault, begun + fault.at_seconds))

    async def _strike_at(self, fault: Fault, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        spec = fault.spec
        if spec.target is Target.PRODUCER:
            await self._strike_producer(fault)
            return
        if spec.cluster is not None and spec.pods is not None:
            self._note(Stroke(_now_ms(), spec.kind, f"{spec.cluster} to {spec.pods}", spec.target, cluster=spec.cluster))
            await self._scale(spec.cluster, spec.pods)
            return
        async with self._orderly[spec.target]:  # those that wait strike one after the other, each seeing what the one before did
            chosen = await self._find(fault)
            if not chosen:
                self._note(
                    Stroke(_now_ms(), spec.kind, str(spec.target), spec.target, skipped=f"no {spec.target} could be struck")
                )
                return
            delays = spread(fault, len(chosen))
            effects = [asyncio.create_task(self._strike(fault, who, after)) for who, after in zip(chosen, delays, strict=True)]
            await asyncio.sleep(spec.within)
        await asyncio.gather(*effects)

    async def _find(self, fault: Fault) -> list[Candidate]:
        """Those to strike; who is just being restarted is waited for, so that a second stroke meets the one that came back."""
        spec = fault.spec
        waits_until = time.monotonic() + (NEEDS_SECONDS if spec.needs else NO_TARGET_SECONDS)
        while True:
            late = time.monotonic() >= waits_until
            if late or len(self._left(Target.POD)) >= spec.needs:
                found = self._left(spec.target)
                if spec.pick is Pick.BUSY and found:
                    found = await self._busy(found)
                if found or late:
                    return choose(found, fault)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _busy(self, found: list[Candidate]) -> list[Candidate]:
        # Looked up before, so that the stroke comes within a job's few milliseconds.
        self._members = {who.pid: who.pids() for who in found}
        give_up = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < give_up:
            busy = [who for who in found if self._site.busy(who)]
            if busy:
                return busy
            await asyncio.sleep(_BUSY_RETRY_SECONDS)
        return found

    def _left(self, target: Target) -> list[Candidate]:
        """Candidates that were not taken away yet: it takes a moment until everybody knows."""
        return [who for who in self._site.candidates(target) if who.pid not in self._struck]

    async def _strike(self, fault: Fault, who: Candidate, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        kind = fault.spec.kind
        family = self._site.members(who.cluster) if who.role == Target.HEAD and kind is Kind.KILL else []
        pids = (self._members.pop(who.pid, []) or who.pids()) if kind is Kind.KILL else []
        stroke = Stroke(_now_ms(), kind, who.name, fault.spec.target, session=who.pid, cluster=who.cluster, family=family)
        if kind in (Kind.KILL, Kind.STOP, Kind.NOTICE):
            self._struck.add(who.pid)
        if kind is Kind.KILL:
            send(pids, signal.SIGKILL)
            if who.whole_session:  # and what was forked meanwhile
                await asyncio.to_thread(signal_session, who.pid, signal.SIGKILL)
        elif kind in (Kind.STOP, Kind.NOTICE):
            send([who.pid], signal.SIGTERM)
        if kind in (Kind.KILL, Kind.STOP):
            self._note(stroke)
        elif kind is Kind.NOTICE:
            self._note(stroke)
            await self._end_of_grace(stroke, who, fault.spec.for_seconds)
        elif kind is Kind.FREEZE:
            await self._freeze(stroke, who, fault.spec.for_seconds)
        else:
            await self._last(stroke, partial(self._effect, fault, who), fault.spec.for_seconds)

    async def _strike_producer(self, fault: Fault) -> None:
        stroke = Stroke(_now_ms(), fault.spec.kind, "producer", Target.PRODUCER)
        self._note(stroke)
        if fault.spec.kind is Kind.POISON:
            await self._load.poison(beside=fault.spec.beside)
            return
        await self._load.skew(fault.spec.clock_seconds)
        try:
            await asyncio.sleep(fault.spec.for_seconds)
        finally:
            await self._load.skew(0.0)
            stroke.until_ms = _now_ms()

    def _effect(self, fault: Fault, who: Candidate) -> AbstractAsyncContextManager[str]:
        spec = fault.spec
        if spec.kind is Kind.THROTTLE:
            return throttled(f"rayline-chaos-{who.pid}", who.pids, spec.cpu, by_signals=spec.by_signals)
        if spec.kind is Kind.HOG:
            return neighbour(who.pids, spec.processes)
        if spec.kind is Kind.DISK_FULL:
            return disk_full(who.pid)
        assert spec.kind in NETWORK_KINDS
        if self._network is None:
            raise Unavailable("faults of the network need root (a network namespace and nftables)")
        return self._network.disturbed(who.pid, disturbance_of(spec))

    async def _last(self, stroke: Stroke, effect: Callable[[], AbstractAsyncContextManager[str]], seconds: float) -> None:
        try:
            async with effect() as how:
                stroke.how = how
                self._note(stroke)
                await asyncio.sleep(seconds)
        except Unavailable as error:
            stroke.skipped = str(error)
            if not any(noted is stroke for noted in self.strokes):
                self._note(stroke)
        stroke.until_ms = _now_ms()

    async def _freeze(self, stroke: Stroke, who: Candidate, seconds: float) -> None:
        frozen = who.pids()
        send(frozen, signal.SIGSTOP)
        self._note(stroke)
        try:
            await asyncio.sleep(seconds)
        finally:
            send(reversed(frozen), signal.SIGCONT)
            stroke.until_ms = _now_ms()

    async def _end_of_grace(self, stroke: Stroke, who: Candidate, seconds: float) -> None:
        """Until the pod has ended, or SIGKILL for all that is left of it."""
        try:
            async with asyncio.timeout(seconds):
                await process_ended(who.pid)
            stroke.how = "ended by itself"
        except TimeoutError:
            stroke.how = "killed after its grace"
        stroke.until_ms = _now_ms()
        await asyncio.to_thread(signal_session, who.pid, signal.SIGKILL)

    def _note(self, stroke: Stroke) -> None:
        self.strokes.append(stroke)
        self._on_stroke(stroke)


def disturbance_of(spec: FaultSpec) -> Disturbance:
    """What a fault of the network does to packets."""
    if spec.kind is Kind.DELAY:
        return Disturbance(
            delay_ms=spec.delay_ms,
            jitter_ms=spec.jitter_ms,
            duplicate_percent=spec.duplicate_percent,
            reorder_percent=spec.reorder_percent,
            corrupt_percent=spec.corrupt_percent,
        )
    if spec.kind is Kind.PARTITION:
        return Disturbance(100, direction=spec.direction)
    return Disturbance(spec.percent, rate_mbit=spec.rate_mbit, direction=spec.direction)


def _now_ms() -> float:
    return time.time() * 1000
