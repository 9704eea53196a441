"""The platform as a fault sees it: processes by role, from the state folder alone, and who they were over time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.chaos.evidence.executions import runs_now
from deploy.chaos.plan import Target
from deploy.local.child import ProcessRecord
from deploy.local.state import StateFolder
from deploy.node_watch import NodeWatch, serving_nodes
from rayline.reports import NodeState
from workers.sessions import session_members

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process that a fault may strike; a pod's and a head's `pid` leads the session of everything in it."""

    name: str
    role: str
    pid: int
    cluster: str | None = None

    @property
    def whole_session(self) -> bool:
        return self.role in (Target.POD, Target.HEAD)

    def pids(self) -> list[int]:
        """All that is struck together, its first process last."""
        if not self.whole_session:
            return [self.pid]
        return [*(pid for pid in session_members(self.pid) if pid != self.pid), self.pid]


@dataclass(frozen=True, slots=True)
class Seen:
    """One pod over the whole run (epoch milliseconds). Its session's id is its first process's."""

    name: str
    cluster: str
    session: int
    from_ms: float


@dataclass(slots=True)
class Census:
    """Which pods there ever were. Owns the list; `newcomer` is told of each pod within 50 ms of its start.

    Life: `run` until cancelled.
    """

    folder: StateFolder
    newcomer: Callable[[Seen], None] = lambda _: None
    # By session and name: a session's id may come again, a pod's name does not.
    pods: dict[tuple[int, str], Seen] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_POLL_SECONDS)

    def look(self) -> None:
        """Enter whoever runs now."""
        state = self.folder.read()
        for record in state.processes if state is not None else ():
            name = f"{record.cluster}/{record.name}"
            if record.role == Target.POD and (record.pid, name) not in self.pods:
                seen = Seen(name, record.cluster or "", record.pid, time.time() * 1000)
                self.pods[record.pid, name] = seen
                self.newcomer(seen)


class Site:
    """Where to strike. Owns nothing; knows who runs by the state folder, and which nodes serve by their reports."""

    def __init__(self, *, folder: StateFolder, nodes: NodeWatch, app: str, record: Path) -> None:
        """`record` is where the app notes what it runs."""
        self._record = record
        self._folder = folder
        self._nodes = nodes
        self._app = app

    def candidates(self, target: Target) -> list[Candidate]:
        """Who could be struck, oldest first; pods only where they serve the app, lanes only the app's own."""
        records = self._records()
        if target is Target.WORKER:
            return self._workers()
        found = [record for record in records if record.role == target and record.process() is not None]
        if target is Target.LANE:
            found = [record for record in found if record.name.startswith(f"lane-{self._app}-")]
        if target is Target.POD:
            serving = set(serving_nodes(self._nodes, self._app, None))
            found = [record for record in found if f"{record.cluster}/{record.name}" in serving]
        return [Candidate(r.name, r.role, r.pid, r.cluster) for r in sorted(found, key=lambda r: (r.started, r.name))]

    def busy(self, who: Candidate) -> bool:
        """Whether the function is being called in this pod or worker now."""
        files = f"*-{who.pid}" if who.role == Target.WORKER else f"{who.pid}-*"
        return any(runs_now(path) for path in self._record.glob(files))

    def members(self, cluster: str | None) -> list[psutil.Process]:
        """Every process of a cluster at this moment: head, gateway, pods, and what is in their sessions."""
        found: dict[int, psutil.Process] = {}
        for record in self._records():
            if record.cluster == cluster and cluster is not None:
                for pid in {record.pid, *session_members(record.pid)}:
                    if psutil.pid_exists(pid):
                        found[pid] = psutil.Process(pid)
        return list(found.values())

    def _records(self) -> Iterable[ProcessRecord]:
        state = self._folder.read()
        return state.processes if state is not None else ()

    def _workers(self) -> list[Candidate]:
        """The processes behind the ports that the node reports name for the app."""
        ports = {
            actor.port: node.report
            for node in self._nodes.nodes()
            for actor in node.report.actors or ()
            if actor.app == self._app and node.report.state is NodeState.READY
        }
        listening = []
        for connection in psutil.net_connections(kind="tcp"):
            port = connection.laddr.port if connection.laddr else None
            if connection.status == psutil.CONN_LISTEN and connection.pid is not None and port in ports:
                report = ports[port]
                listening.append(Candidate(f"worker on {report.node}", Target.WORKER, connection.pid, report.cluster))
        return sorted(listening, key=lambda candidate: (candidate.name, candidate.pid))
