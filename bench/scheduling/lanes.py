"""How lanes choose: the product's own router under a simulated clock, and references that others use or nobody can."""

# ruff: noqa: ARG002 - most ways of choosing ignore most of what they could know
from __future__ import annotations

import bisect
import itertools
import random
import zlib
from typing import Final, Protocol

from bench.scheduling.node import SimBatch, SimNode
from rayline.app_spec import SchedulingPolicy
from rayline.reports import NodeReport, NodeState
from scheduler.router import Router, Target, phase_of
from scheduler.swrr import SmoothWeightedRoundRobin
from scheduler.view import View
from scheduler.weights import Weigher, WeightPolicy

RING_POINTS: Final = 100
REFRESH_SECONDS: Final = 0.25


class Chooser(Protocol):
    """One lane's way of choosing. `choose` returns None when the batch must wait in the lane."""

    def hear(self, reports: list[NodeReport], now: float) -> None: ...

    def tick(self, now: float) -> None: ...

    def choose(self, batch: SimBatch, now: float) -> SimNode | None: ...

    def ended(self, batch: SimBatch, now: float) -> None: ...

    def busy(self, batch: SimBatch, now: float) -> None: ...

    def lost(self, batch: SimBatch, now: float) -> None: ...

    def draining(self, batch: SimBatch, now: float) -> None: ...


class RouterLane:
    """The product: `scheduler.view`, `scheduler.weights`, `scheduler.swrr` and `scheduler.router` as lanes run them."""

    def __init__(self, *, nodes: dict[str, SimNode], policy: WeightPolicy | SchedulingPolicy, lane: int, seed: int) -> None:
        self._nodes = nodes
        self._view = View()
        self._refresh_at = 0.0
        self.router = Router(app="app", policy=policy, phase=phase_of(f"lane-{lane}"), seed=seed)

    def hear(self, reports: list[NodeReport], now: float) -> None:
        if self._view.apply(reports, now) or now >= self._refresh_at:
            self._refresh_at = now + REFRESH_SECONDS
            self.router.refresh(self._view, "1", now)

    def tick(self, now: float) -> None:
        self.router.wake(now)

    def choose(self, batch: SimBatch, now: float) -> SimNode | None:
        target = self.router.pick(now)
        if target is None:
            return None
        batch.target = target
        batch.seat = int(target.endpoint.name[1:])
        return self._nodes[target.node]

    def ended(self, batch: SimBatch, now: float) -> None:
        self.router.finished(_target(batch), now, seconds=now - batch.dispatched)

    def busy(self, batch: SimBatch, now: float) -> None:
        self.router.finished(_target(batch), now, seconds=None)
        self.router.busy(_target(batch), now)

    def lost(self, batch: SimBatch, now: float) -> None:
        self.router.finished(_target(batch), now, seconds=None)
        self.router.lost(_target(batch), now)

    def draining(self, batch: SimBatch, now: float) -> None:
        self.router.finished(_target(batch), now, seconds=None)
        self.router.draining(_target(batch), now)


class _Online:
    """Keeps the list of nodes that are in rotation by the reports; the base of the references."""

    def __init__(self, nodes: dict[str, SimNode]) -> None:
        self._nodes = nodes
        self._online: list[SimNode] = []
        self._names: set[str] = set()
        self._heard: dict[str, float] = {}

    def hear(self, reports: list[NodeReport], now: float) -> None:
        changed = False
        for report in reports:
            name = report.key
            self._heard[name] = now
            ready = report.state is NodeState.READY
            if ready != (name in self._names):
                changed = True
                (self._names.add if ready else self._names.discard)(name)
            self._take(report)
        silent = [name for name in self._names if now - self._heard[name] > 3.5]
        if silent or changed:
            self._names.difference_update(silent)
            self._online = [self._nodes[name] for name in sorted(self._names)]
            self._changed()

    def _take(self, report: NodeReport) -> None:
        """One report's load."""

    def _changed(self) -> None:
        """Other nodes are online."""

    def tick(self, now: float) -> None:
        """Nothing that depends on time alone."""

    def ended(self, batch: SimBatch, now: float) -> None:
        """Nothing is counted."""

    def busy(self, batch: SimBatch, now: float) -> None:
        """What is sent to a node and not to one of its actors waits there."""

    def lost(self, batch: SimBatch, now: float) -> None:
        if batch.node is not None:
            self._names.discard(f"c/{batch.node.name}")
            self._online = [node for node in self._online if node is not batch.node]
            self._changed()

    draining = lost


class RandomLane(_Online):
    """Any node, at once."""

    def __init__(self, *, nodes: dict[str, SimNode], dice: random.Random) -> None:
        super().__init__(nodes)
        self._dice = dice

    def choose(self, batch: SimBatch, now: float) -> SimNode | None:
        return self._dice.choice(self._online) if self._online else None


class RoundRobinLane(_Online):
    """One after the other, at once."""

    def __init__(self, *, nodes: dict[str, SimNode], dice: random.Random) -> None:
        super().__init__(nodes)
        self._turns = itertools.count(dice.randrange(1 << 16))

    def choose(self, batch: SimBatch, now: float) -> SimNode | None:
        return self._online[next(self._turns) % len(self._online)] if self._online else None


class HashLane(_Online):
    """Consistent hashing of the job's key, with points in proportion to cores."""

    def _changed(self) -> None:
        points = [
            (zlib.crc32(f"{node.name}/{point}".encode()), node)
            for node in self._online
            for point in range(RING_POINTS * node.cores // 16)
        ]
        points.sort(key=lambda entry: (entry[0], entry[1].name))
        self._points = [entry[0] for entry in points]
        self._owners = [entry[1] for entry in points]

    def choose(self, batch: SimBatch, now: float) -> SimNode | None:
        if not self._online:
            return None
        place = bisect.bisect(self._points, zlib.crc32(f"key {batch.number}".encode()))
        return self._owners[place % len(self._owners)]


class SwrrLane(_Online):
    """SWRR over a policy's weights, every 3 s, and nothing else: as the article has it. Batches are sent at once."""

    def __init__(self, *, nodes: dict[str, SimNode], policy: WeightPolicy, seed: int) -> None:
        super().__init__(nodes)
        self._weigher = Weigher(policy=policy, seed=seed)
        self._swrr: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
        self._known: set[str] = set()
        self._now = 0.0

    def hear(self, reports: list[NodeReport], now: float) -> None:
        self._now = now
        super().hear(reports, now)
        if self._weigher.due(now):
            self._weigh()

    def _take(self, report: NodeReport) -> None:
        if report.key in self._names and report.key not in self._known:
            self._known.add(report.key)
            self._weigher.fleet.join(report.key, self._now)
        if report.key in self._known:
            self._weigher.fleet.observe(report.key, report, self._now)

    def _changed(self) -> None:
        for name in self._known - self._names:
            self._weigher.fleet.leave(name, self._now)
            if name in self._swrr:
                self._swrr.remove(name)
        self._known &= self._names
        self._weigh()

    def _weigh(self) -> None:
        self._swrr.set_weights(*self._weigher.update(self._now))

    def choose(self, batch: SimBatch, now: float) -> SimNode | None:
        chosen = self._swrr.pick()
        return None if chosen is None else self._nodes[chosen]


class StaleLeastLoadedLane(_Online):
    """The node with the fewest jobs for its cores by its last report: every lane thinks so until the next one."""

    def __init__(self, *, nodes: dict[str, SimNode]) -> None:
        super().__init__(nodes)
        self._jobs: dict[str, float] = {}

    def _take(self, report: NodeReport) -> None:
        if report.load is not None and report.cpus:
            self._jobs[report.key] = ((report.load.jobs_in_flight or 0) + 1) / report.cpus

    def choose(self, batch: SimBatch, now: float) -> SimNode | None:
        return min(self._online, key=lambda node: self._jobs.get(f"c/{node.name}", 0.0)) if self._online else None


class PerfectLane(_Online):
    """The least loaded of all by what is true at this very moment, of all lanes and neighbours: nobody can know that.

    A batch waits in the lane while no actor anywhere is free.
    """

    def choose(self, batch: SimBatch, now: float) -> SimNode | None:
        free = [node for node in self._online if node.running < node.cores and node.alive]
        return min(free, key=lambda node: (node.running + 1) / node.available) if free else None


def _target(batch: SimBatch) -> Target:
    target = batch.target
    if not isinstance(target, Target):
        raise TypeError(f"batch {batch.number} was not sent by a router")
    return target
