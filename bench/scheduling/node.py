"""One simulated node: actors that share the cores which its neighbours leave."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState

LEAST_SHARE: Final = 0.05


@dataclass(slots=True, eq=False)
class SimBatch:
    """A batch on its way; `seat` is the actor it was sent to, None: the next free one of the node."""

    number: int
    arrived: float
    cost: float
    lane: int
    dispatched: float = 0.0
    attempts: int = 0
    seat: int | None = None
    target: object = None
    node: SimNode | None = None


@dataclass(slots=True, eq=False)
class SimNode:
    """Owns what runs and waits on one node. Does not own time: `advance` is told it.

    Each running batch gets one core, or its equal part of what is left. What it got since the node's start is the same for all
    (`_attained`), so that the next to end is the one with the least left when it began.
    """

    name: str
    cores: int
    incarnation: int
    neighbour: float = 0.0
    slowed: float = 1.0
    state: NodeState = NodeState.READY
    alive: bool = True
    version: int = 0
    running: int = 0
    seq: int = 0
    endpoints: tuple[ActorEndpoint, ...] = ()
    waiting: dict[int, deque[SimBatch]] = field(default_factory=dict)
    queue: deque[SimBatch] = field(default_factory=deque)
    busy_seats: set[int] = field(default_factory=set)
    _ends: list[tuple[float, int, SimBatch]] = field(default_factory=list)
    _attained: float = 0.0
    _at: float = 0.0
    _own_seconds: float = 0.0
    _host_seconds: float = 0.0
    _sampled_at: float = 0.0
    busy_core_seconds: float = 0.0
    available_core_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.endpoints = tuple(
            ActorEndpoint("app", "1", f"a{seat}", "h", 1, 2, f"{self.name}.{seat}") for seat in range(self.cores)
        )

    @property
    def available(self) -> float:
        """Cores that are ours if we want them."""
        return self.cores * max(LEAST_SHARE, (1.0 - self.neighbour) * self.slowed)

    @property
    def rate(self) -> float:
        available = self.available
        return 1.0 if self.running <= available else available / self.running

    def advance(self, now: float) -> None:
        passed = now - self._at
        if passed > 0:
            available, running = self.available, self.running
            own = min(running, available)
            if running:
                self._attained += passed * (own / running)
                self._own_seconds += passed * own
                self.busy_core_seconds += passed * own
            self.available_core_seconds += passed * available
            self._host_seconds += passed * min(self.cores, self.cores * self.neighbour + own)
            self._at = now

    def add(self, batch: SimBatch, now: float) -> None:
        """A batch arrives; it runs at once where its actor is free."""
        self.advance(now)
        batch.node = self
        if batch.seat is None:
            if self.running >= self.cores:
                self.queue.append(batch)
                return
        elif batch.seat in self.busy_seats:
            self.waiting.setdefault(batch.seat, deque()).append(batch)
            return
        self._begin(batch)

    def _begin(self, batch: SimBatch) -> None:
        if batch.seat is not None:
            self.busy_seats.add(batch.seat)
        self.running += 1
        self.version += 1
        heapq.heappush(self._ends, (self._attained + batch.cost, batch.number, batch))

    def next_end(self) -> float | None:
        """When the next batch ends if nothing changes before."""
        if not self._ends:
            return None
        return self._at + max(0.0, self._ends[0][0] - self._attained) / self.rate

    def end_one(self, now: float) -> SimBatch:
        """The batch that is due ends; the next one of its actor begins."""
        self.advance(now)
        batch = heapq.heappop(self._ends)[2]
        self.running -= 1
        self.version += 1
        seat = batch.seat
        if seat is None:
            if self.queue:
                self._begin(self.queue.popleft())
        else:
            self.busy_seats.discard(seat)
            if waiting := self.waiting.get(seat):
                self._begin(waiting.popleft())
        return batch

    def waits(self, batch: SimBatch) -> bool:
        """Whether the batch waits for its actor here."""
        return batch.seat is not None and batch in self.waiting.get(batch.seat, ())

    def turn_away(self, batch: SimBatch) -> None:
        """It has waited for its actor for too long. Raises KeyError or ValueError where it does not wait here."""
        if batch.seat is not None:
            self.waiting[batch.seat].remove(batch)

    def evict(self, now: float) -> list[SimBatch]:
        """The node is gone; returns what did not end."""
        self.advance(now)
        self.alive = False
        self.version += 1
        left = [entry[2] for entry in self._ends] + list(self.queue) + [b for queue in self.waiting.values() for b in queue]
        self._ends, self.running = [], 0
        self.queue.clear()
        self.waiting.clear()
        return left

    def hand_back(self) -> list[SimBatch]:
        """What waits and has not begun, at a notice."""
        left = list(self.queue) + [b for queue in self.waiting.values() for b in queue]
        self.queue.clear()
        self.waiting.clear()
        return left

    def report(self, now: float) -> NodeReport:
        """A beat with a sample over the time since the last one."""
        self.advance(now)
        self.seq += 1
        passed = now - self._sampled_at
        load = None
        if passed > 0:
            load = NodeLoad(
                cores=float(self.cores),
                host_cpu=min(1.0, self._host_seconds / passed / self.cores),
                own_cpu=self._own_seconds / passed,
                jobs_in_flight=self.running,
            )
        self._own_seconds = self._host_seconds = 0.0
        self._sampled_at = now
        return NodeReport(
            "c", self.name, self.incarnation, self.seq, self.state, float(self.cores), actors=self.endpoints, beat=True, load=load
        )
