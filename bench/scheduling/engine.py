"""The discrete events: arrivals, ends, beats, changing neighbours, evictions. Deterministic by scenario and seed."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.scheduling.lanes import Chooser
from bench.scheduling.node import SimBatch, SimNode
from bench.scheduling.scenario import MEAN_NEIGHBOUR, Chances, News, Scenario
from rayline.reports import NodeReport, NodeState

BEAT_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.1
PULL_SECONDS: Final = 3.0
UTILISATION_SECONDS: Final = 1.0
LOSS_SEEN_SECONDS: Final = 0.05
REFUSAL_SEEN_SECONDS: Final = 0.002
GRACE_SECONDS: Final = 5.0
# After the last arrival, what is under way may end for so long.
DRAIN_SECONDS: Final = 60.0


@dataclass(slots=True)
class Run:
    """What one run gave. Latencies in seconds from arrival to end; deviations of the nodes' utilisation (0 to 1), by second."""

    latencies: list[float] = field(default_factory=list)
    arrived: int = 0
    unfinished: int = 0
    late: int = 0
    failed: int = 0
    again: int = 0
    refused: int = 0
    deviations: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Seconds that so large a share of the jobs did not exceed; infinite where none ended."""
        if not self.latencies:
            return math.inf
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Simulation:
    """Owns virtual time and the world. Does not own how lanes choose.

    Life: construct, `run` once.
    """

    def __init__(self, scenario: Scenario, seed: int, make_lane: Callable[[dict[str, SimNode], int, Chances], Chooser]) -> None:
        self._scenario = scenario
        self._chances = Chances(seed)
        self._nodes: dict[str, SimNode] = {}
        self._live: list[SimNode] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._numbers = itertools.count()
        self._names = itertools.count()
        self._inbox: list[NodeReport] = []
        self._unread: list[list[NodeReport]] = [[] for _ in range(scenario.lanes)]
        self._pulls_at = [0.0] * scenario.lanes
        self._now = 0.0
        self._result = Run()
        self._lanes: list[Chooser] = []
        self._queues: list[deque[SimBatch]] = [deque() for _ in range(scenario.lanes)]
        self._make_lane = make_lane

    def run(self) -> Run:
        scenario = self._scenario
        for _ in range(scenario.nodes):
            self._start_node()
        self._inbox += [node.report(0.0) for node in self._live]
        self._lanes = [self._make_lane(self._nodes, lane, self._chances) for lane in range(scenario.lanes)]
        capacity = sum(node.cores for node in self._live) * (1.0 - MEAN_NEIGHBOUR)
        self._between = 1.0 / (scenario.jobs_a_second or scenario.load * capacity)
        self._tick()
        self._at(self._chances.arrivals.expovariate(1.0) * self._between, self._arrive)
        self._at(scenario.warm_up_seconds, self._measure_utilisation)
        for node in self._live[: scenario.slow_nodes]:
            self._at(scenario.seconds / 3, lambda node=node: self._slow(node, scenario.slow_to))  # type: ignore[misc]
            self._at(scenario.seconds * 2 / 3, lambda node=node: self._slow(node, 1.0))  # type: ignore[misc]
        events, end = self._events, scenario.seconds
        while events and events[0][0] <= end + DRAIN_SECONDS and (events[0][0] <= end or self._left):
            self._now, _, act = heapq.heappop(events)
            act()
        self._result.unfinished = self._left
        return self._result

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    @property
    def _left(self) -> int:
        return self._result.arrived - len(self._result.latencies) - self._result.failed

    # The world.

    def _start_node(self) -> None:
        chances, scenario = self._chances, self._scenario
        number = next(self._names)
        node = SimNode(f"n{number:06}", chances.fleet.randint(*scenario.cores), incarnation=number + 1)
        self._nodes[f"c/{node.name}"] = node
        self._live.append(node)
        node.advance(self._now)
        if scenario.neighbours:
            self._neighbour(node)
        self._at(self._now + chances.beats.random() * BEAT_SECONDS, lambda: self._beat(node))
        rate = (scenario.notices + scenario.deaths) / 3600.0
        if rate:
            noticed = chances.failures.random() < scenario.notices / (scenario.notices + scenario.deaths)
            when = self._now + chances.failures.expovariate(rate)
            self._at(when, (lambda: self._notice(node)) if noticed else (lambda: self._die(node)))

    def _neighbour(self, node: SimNode) -> None:
        if not node.alive:
            return
        node.advance(self._now)
        node.neighbour = self._chances.neighbour()
        self._expect(node)
        pause = self._chances.neighbours.expovariate(1.0 / self._scenario.neighbour_seconds)
        self._at(self._now + pause, lambda: self._neighbour(node))

    def _slow(self, node: SimNode, slowed: float) -> None:
        if node.alive:
            node.advance(self._now)
            node.slowed = slowed
            self._expect(node)

    def _beat(self, node: SimNode) -> None:
        if not node.alive:
            return
        self._tell(node)
        self._at(self._now + BEAT_SECONDS, lambda: self._beat(node))

    def _tell(self, node: SimNode) -> None:
        report = node.report(self._now)
        self._at(self._now + self._chances.beats.uniform(*self._scenario.delay_seconds), lambda: self._inbox.append(report))

    def _notice(self, node: SimNode) -> None:
        """SIGTERM. Told at once: what runs may end within the grace, what waits is handed back. Otherwise it works on."""
        if not node.alive:
            return
        if self._scenario.news is not News.NONE:
            node.state = NodeState.DRAINING
        if self._scenario.news is News.AT_ONCE:
            self._tell(node)
            for batch in node.hand_back():
                self._back(batch, noticed=True)
        self._at(self._now + GRACE_SECONDS, lambda: self._die(node))

    def _die(self, node: SimNode) -> None:
        if not node.alive:
            return
        for batch in node.evict(self._now):
            self._at(self._now + LOSS_SEEN_SECONDS, lambda batch=batch: self._back(batch, noticed=False))  # type: ignore[misc]
        self._live.remove(node)
        self._at(self._now + self._scenario.replacement_seconds, self._start_node)

    def _measure_utilisation(self) -> None:
        """How unevenly the cores that neighbours leave are used, over the last second."""
        shares = []
        for node in self._live:
            node.advance(self._now)
            if node.available_core_seconds > 0:
                shares.append(node.busy_core_seconds / node.available_core_seconds)
            node.busy_core_seconds = node.available_core_seconds = 0.0
        mean = sum(shares) / len(shares)
        self._result.deviations.append((sum((share - mean) ** 2 for share in shares) / len(shares)) ** 0.5)
        self._at(self._now + UTILISATION_SECONDS, self._measure_utilisation)

    # Jobs.

    def _arrive(self) -> None:
        if self._now > self._scenario.seconds:
            return
        chances = self._chances
        lane = chances.arrivals.randrange(self._scenario.lanes)
        batch = SimBatch(next(self._numbers), self._now, chances.cost(self._scenario.costs), lane)
        if self._now >= self._scenario.warm_up_seconds:
            self._result.arrived += 1
        self._queues[lane].append(batch)
        self._dispatch(lane)
        self._at(self._now + chances.arrivals.expovariate(1.0) * self._between, self._arrive)

    def _dispatch(self, lane: int) -> None:
        queue, chooser = self._queues[lane], self._lanes[lane]
        while queue:
            batch = queue[0]
            batch.seat = None
            node = chooser.choose(batch, self._now)
            if node is None:
                return
            queue.popleft()
            batch.dispatched = self._now
            batch.attempts += 1
            batch.node = node
            if not node.alive:
                self._at(self._now + LOSS_SEEN_SECONDS, lambda batch=batch: self._back(batch, noticed=False))  # type: ignore[misc]
            elif node.state is not NodeState.READY and self._scenario.news is News.AT_ONCE:
                self._at(self._now, lambda batch=batch: self._back(batch, noticed=True))  # type: ignore[misc]
            else:
                node.add(batch, self._now)
                self._expect(node)
                if node.waits(batch):
                    attempt = batch.attempts
                    when = self._now + self._scenario.patience_seconds + REFUSAL_SEEN_SECONDS
                    self._at(when, lambda batch=batch, attempt=attempt: self._refuse(batch, attempt))  # type: ignore[misc]

    def _refuse(self, batch: SimBatch, attempt: int) -> None:
        """The actor's patience is over, unless the batch's turn has come or it is elsewhere by now."""
        if batch.attempts == attempt and batch.node is not None and batch.node.waits(batch):
            batch.node.turn_away(batch)
            self._result.refused += 1
            self._lanes[batch.lane].busy(batch, self._now)
            self._queues[batch.lane].appendleft(batch)
            self._dispatch(batch.lane)

    def _expect(self, node: SimNode) -> None:
        """Come back when its next batch ends, unless something changes before."""
        node.version += 1
        end = node.next_end()
        if end is not None:
            version = node.version
            self._at(end, lambda: self._end(node, version))

    def _end(self, node: SimNode, version: int) -> None:
        if node.version != version:
            return
        batch = node.end_one(self._now)
        self._expect(node)
        if batch.arrived >= self._scenario.warm_up_seconds:
            seconds = self._now - batch.arrived
            self._result.latencies.append(seconds)
            self._result.late += seconds > self._scenario.deadline_seconds
        self._lanes[batch.lane].ended(batch, self._now)
        self._dispatch(batch.lane)

    def _back(self, batch: SimBatch, *, noticed: bool) -> None:
        """A batch came back unfinished: it goes before all others, elsewhere; where nothing is tried again, it has failed."""
        chooser = self._lanes[batch.lane]
        (chooser.draining if noticed else chooser.lost)(batch, self._now)
        if not self._scenario.retry:
            self._result.failed += batch.arrived >= self._scenario.warm_up_seconds
            self._dispatch(batch.lane)
            return
        self._result.again += 1
        self._queues[batch.lane].appendleft(batch)
        self._dispatch(batch.lane)

    def _tick(self) -> None:
        """Lanes hear what came since, and look after what depends on time."""
        told, self._inbox = self._inbox, []
        for lane, chooser in enumerate(self._lanes):
            self._unread[lane] += told
            heard = self._pull(lane)
            if heard:
                chooser.hear(heard, self._now)
            chooser.tick(self._now)
            self._dispatch(lane)
        self._at(self._now + TICK_SECONDS, self._tick)

    def _pull(self, lane: int) -> list[NodeReport]:
        """What a lane takes over now of what was told."""
        if self._scenario.news is News.ARTICLE:
            if self._now < self._pulls_at[lane]:
                return []
            # Lanes began at different moments.
            phase = PULL_SECONDS * (lane + 1) / len(self._lanes) if not self._pulls_at[lane] else PULL_SECONDS
            self._pulls_at[lane] = self._now + phase
        heard, self._unread[lane] = self._unread[lane], []
        return heard
