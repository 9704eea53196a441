"""A world for the keeper under virtual time: an executor that carries orders out, and accidents that a test may cause."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rayline.clusters import (
    ActualCluster,
    ClusterBook,
    ClusterOrder,
    DesiredCluster,
    ExecutorIdentity,
    Lease,
    Phase,
    ProcessFact,
)
from scheduler.keeper import Action, Limits, NodeFact, decide


@dataclass
class World:
    """`book` is what Kafka holds; `step` is one turn of the keeper, `carry_out` one of the executor."""

    limits: Limits = field(default_factory=Limits)
    book: ClusterBook = field(default_factory=ClusterBook)
    nodes: dict[str, NodeFact] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    now_ms: int = 1_000_000
    lives: int = 0
    wake_at_ms: int | None = None

    def __post_init__(self) -> None:
        self.new_executor()
        self.new_keeper()

    def new_executor(self) -> None:
        """All processes end with the executor, without a word."""
        self.lives += 1
        self.book.take(ExecutorIdentity(f"life-{self.lives}"))
        self.nodes.clear()

    def new_keeper(self) -> None:
        self.book.take(Lease(self.book.epoch + 1, "keeper"))

    def want(self, cluster: str, pods: int) -> None:
        self.book.take(DesiredCluster(cluster, pods))

    def step(self) -> list[Action]:
        plan = decide(self.book, self.nodes, epoch=self.book.epoch, now_ms=self.now_ms, limits=self.limits)
        for order in plan.orders:
            assert self.book.take(order)
        self.actions += plan.actions
        self.wake_at_ms = plan.wake_at_ms
        return list(plan.actions)

    def carry_out(self) -> None:
        """What the local executor does with the orders, at once."""
        for order in self.book.orders.values():
            if order.executor == self.book.executor:
                self.book.take(self._carried_out(order))

    def _carried_out(self, order: ClusterOrder) -> ActualCluster:
        old = self.book.actual.get(order.cluster)
        if old is None or (old.executor, old.generation) != (order.executor, order.generation):
            old = ActualCluster(order.cluster, order.executor, 0, order.generation)
        running = ProcessFact(Phase.RUNNING, self.now_ms)
        if not order.wanted:
            head = old.head and replace(old.head, phase=Phase.ENDED)
            return replace(old, revision=order.revision, head=head, pods={})
        pods = {pod: fact for pod, fact in old.pods.items() if pod in order.pods or pod in order.leaving}
        for pod in order.pods:
            if pod not in pods:
                self.started.append(pod)
                pods[pod] = running
        return replace(old, revision=order.revision, head=old.head or running, pods=pods)

    def join(self) -> None:
        """Every pod that runs under a running head is seen by its gateway."""
        self.nodes = {
            pod: self.nodes.get(pod, NodeFact(joined=True, seen=True))
            for actual in self.book.actual.values()
            if actual.executor == self.book.executor
            for pod, fact in actual.pods.items()
            if fact.phase is Phase.RUNNING
        }

    def end_pod(self, cluster: str, pod: str, *, noticed: bool = False, reason: str = "killed") -> None:
        actual = self.book.actual[cluster]
        fact = actual.pods[pod]
        ended = ProcessFact(Phase.ENDED, self.now_ms, self.now_ms - fact.at_ms, noticed, reason)
        self.book.take(replace(actual, pods={**actual.pods, pod: ended}))
        self.nodes.pop(pod, None)

    def end_head(self, cluster: str, reason: str = "killed") -> None:
        actual = self.book.actual[cluster]
        assert actual.head is not None
        ended = ProcessFact(Phase.ENDED, self.now_ms, self.now_ms - actual.head.at_ms, reason=reason)
        self.book.take(replace(actual, head=ended))

    def running(self, cluster: str) -> list[str]:
        """What runs of a cluster; what a former life of the executor said of it is history."""
        actual = self.book.actual.get(cluster)
        if actual is None or actual.executor != self.book.executor:
            return []
        return [pod for pod, fact in actual.pods.items() if fact.phase is Phase.RUNNING]

    def settle(self, turns: int = 200) -> None:
        """Let time pass without accidents until nothing is left to do."""
        quiet = 0
        for _ in range(turns):
            # The first quiet turn may have waited for what was carried out after it.
            quiet = 0 if self.step() or self.wake_at_ms is not None else quiet + 1
            self.carry_out()
            self.join()
            if quiet == 2:
                return
            self.now_ms = max(self.now_ms + 100, self.wake_at_ms or 0)
        raise AssertionError(f"it does not come to rest: {self.actions[-5:]}")
