"""Does to processes what a plan says."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil

from deploy.chaos.plan import Fault, Kind, Target, choose
from deploy.chaos.verdict import Stroke
from deploy.local.platform import LocalPlatform
from deploy.local.supervision import Role
from rayline.reports import NodeState

NO_TARGET_SECONDS: Final = 20.0
_RETRY_SECONDS: Final = 0.05
_ROLES: Final = {Target.LANE: Role.LANE, Target.BROKER: Role.BROKER, Target.POD: Role.POD, Target.HEAD: Role.HEAD}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process that a fault may strike."""

    name: str
    pid: int


class FaultInjector:
    """Strikes processes of one platform at their moments.

    Owns the list of what it did. Does not repair: the platform's own supervision does. Life: `run` until the schedule is
    over; frozen processes are woken also when it is cancelled.
    """

    def __init__(self, *, platform: LocalPlatform, app: str, on_stroke: Callable[[Stroke], None]) -> None:
        self._platform = platform
        self._app = app
        self._on_stroke = on_stroke
        self.strokes: list[Stroke] = []

    async def run(self, schedule: list[Fault]) -> None:
        """Carry out every fault at its second from now."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                group.create_task(self._strike_at(fault, begun + fault.at_seconds))

    async def _strike_at(self, fault: Fault, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        candidate = await self._find(fault)
        if candidate is None:
            self._note(fault, f"{fault.target}: none ran")
            return
        self._note(fault, candidate.name)
        if fault.kind is Kind.NOTICE:
            await self._platform.evict(candidate.name, grace_seconds=fault.for_seconds)
        elif fault.kind is Kind.FREEZE:
            await _freeze(candidate.pid, fault.for_seconds)
        else:
            _send(candidate.pid, signal.SIGKILL if fault.kind is Kind.KILL else signal.SIGTERM)

    async def _find(self, fault: Fault) -> Candidate | None:
        """A target; one that is just being restarted is waited for, so that a second stroke meets the one that came back."""
        give_up = time.monotonic() + NO_TARGET_SECONDS
        while time.monotonic() < give_up:
            chosen = choose(self._candidates(fault.target), fault.draw)
            if chosen is not None:
                return chosen
            await asyncio.sleep(_RETRY_SECONDS)
        return None

    def _candidates(self, target: Target) -> list[Candidate]:
        if target is Target.WORKER:
            return self._workers()
        records = [record for record in self._platform.processes() if record.role == _ROLES[target]]
        if target is Target.LANE:
            records = [record for record in records if record.name.startswith(f"lane-{self._app}-")]
        return sorted((Candidate(record.name, record.pid) for record in records), key=lambda candidate: candidate.name)

    def _workers(self) -> list[Candidate]:
        """The processes behind the ports that the node reports name for the app."""
        ports = {
            actor.port: f"worker on {node.report.node}"
            for node in self._platform.nodes.nodes()
            for actor in node.report.actors or ()
            if actor.app == self._app and node.report.state is NodeState.READY
        }
        listening = []
        for connection in psutil.net_connections(kind="tcp"):
            port = connection.laddr.port if connection.laddr else None
            if connection.status == psutil.CONN_LISTEN and connection.pid is not None and port in ports:
                listening.append(Candidate(ports[port], connection.pid))
        return sorted(listening, key=lambda candidate: (candidate.name, candidate.pid))

    def _note(self, fault: Fault, target: str) -> None:
        stroke = Stroke(at_ms=time.time() * 1000, kind=fault.kind.value, target=target)
        self.strokes.append(stroke)
        self._on_stroke(stroke)


async def _freeze(pid: int, seconds: float) -> None:
    _send(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    """Nothing happens when it is gone by now: then the fault has come by itself."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
