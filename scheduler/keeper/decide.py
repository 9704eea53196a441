"""From what is wanted and what there is to the next orders. Pure: everything comes in as an argument, time too (epoch ms).

Nothing is remembered between two calls: what a keeper has to know of its own past (generations, names, back-off) stands in the
orders themselves, so that its successor decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rayline.clusters import (
    ActualCluster,
    Backoff,
    ClusterBook,
    ClusterOrder,
    DesiredCluster,
    Phase,
    ProcessFact,
    Slot,
)
from scheduler.keeper.actions import Action, ActionKind
from scheduler.keeper.backoff import BackoffPolicy


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may happen at once, over all clusters, and how long things may take.

    `surge`: pods of a cluster beyond what is wanted, while others serve out their notice. `join_ms`: from a pod's start until its
    cluster's gateway saw it; `ahead_ms`: of this, one pod of a cluster that was built anew starts alone. `silent_ms`: nothing
    heard of a pod whose process runs, while others of its cluster are heard.
    """

    starting_pods: int = 8
    building_clusters: int = 4
    surge: int = 1
    join_ms: int = 120_000
    ahead_ms: int = 20_000
    silent_ms: int = 180_000
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)


@dataclass(frozen=True, slots=True)
class NodeFact:
    """What node reports say of a pod: whether it is in its cluster now, whether it ever was, whether it gave notice, and how long
    nothing was heard of it."""

    joined: bool = False
    seen: bool = False
    leaving: bool = False
    silent_ms: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """New orders (only where something changed), what they do, and when to look again at the latest (epoch ms; None: when
    something happens)."""

    orders: tuple[ClusterOrder, ...]
    actions: tuple[Action, ...]
    wake_at_ms: int | None


def decide(book: ClusterBook, nodes: Mapping[str, NodeFact], *, epoch: int, now_ms: int, limits: Limits) -> Plan:
    """The next orders; `nodes` by the pods' names. Nothing happens while no executor has said that it is there."""
    if book.executor is None:
        return Plan((), (), None)
    turn = _Turn(book, nodes, now_ms, limits)
    orders = []
    for cluster in sorted(book.desired.keys() | book.orders.keys()):
        before = book.orders.get(cluster, ClusterOrder(cluster=cluster, epoch=epoch))
        after = turn.settle(book.desired.get(cluster), before, book.actual.get(cluster))
        if after != before:
            orders.append(replace(after, epoch=epoch, revision=before.revision + 1))
    return Plan(tuple(orders), tuple(turn.actions), turn.wake_at_ms)


class _Turn:
    """One decision over all clusters. Owns what is left of the limits, and the actions taken so far."""

    def __init__(self, book: ClusterBook, nodes: Mapping[str, NodeFact], now_ms: int, limits: Limits) -> None:
        self._executor = book.executor or ""
        self._nodes = nodes
        self._now_ms = now_ms
        self._limits = limits
        self.actions: list[Action] = []
        self.wake_at_ms: int | None = None
        self._starts_left = limits.starting_pods
        self._builds_left = limits.building_clusters
        for order in book.orders.values():
            if order.wanted and order.executor == self._executor and order.cluster in book.desired:
                self._count(order, self._facts(order, book.actual.get(order.cluster)))

    def settle(self, desired: DesiredCluster | None, order: ClusterOrder, actual: ActualCluster | None) -> ClusterOrder:
        """The order for one cluster as it should be now."""
        if desired is None or desired.pods == 0:
            return self._discard(order, "it is not wanted any more") if order.wanted else order
        if order.wanted and order.executor != self._executor:
            order = self._discard(order, "what ran it has ended, and started anew")
        facts = self._facts(order, actual)
        if order.wanted and facts is not None and facts.head is not None:
            order = self._look_at_head(order, facts.head)
        if not order.wanted:
            order = self._build(order, desired)
        if not order.wanted:
            return order
        if facts is not None and facts.generation == order.generation:
            order = self._look_at_pods(order, facts)
        return self._fill(self._resize(order, desired), desired, facts)

    def _facts(self, order: ClusterOrder, actual: ActualCluster | None) -> ActualCluster | None:
        """What the executor says of this very generation; None while it has not said anything."""
        if actual is None or (actual.executor, actual.generation) != (order.executor, order.generation):
            return None
        return actual

    def _count(self, order: ClusterOrder, facts: ActualCluster | None) -> None:
        """What is under way already takes its part of the limits."""
        if facts is None or facts.head is None or facts.head.phase is Phase.STARTING:
            self._builds_left -= 1
        for pod in order.pods:
            fact = None if facts is None else facts.pods.get(pod)
            if not self._node(pod).seen and (fact is None or fact.phase is not Phase.ENDED):
                self._starts_left -= 1

    def _node(self, pod: str) -> NodeFact:
        return self._nodes.get(pod, NodeFact())

    def _wake(self, at_ms: int) -> None:
        self.wake_at_ms = at_ms if self.wake_at_ms is None else min(self.wake_at_ms, at_ms)

    def _act(
        self,
        kind: ActionKind,
        order: ClusterOrder,
        *,
        pod: str | None = None,
        replaces: str | None = None,
        reason: str | None = None,
        delay_ms: int = 0,
    ) -> None:
        self.actions.append(Action(kind, order.cluster, order.generation, pod, replaces, reason, delay_ms))

    def _discard(self, order: ClusterOrder, reason: str | None) -> ClusterOrder:
        self._act(ActionKind.DISCARD, order, reason=reason)
        return replace(order, wanted=False, slots=(), leaving=())

    def _look_at_head(self, order: ClusterOrder, head: ProcessFact) -> ClusterOrder:
        """A head is never repaired: its cluster is discarded."""
        if head.phase is Phase.ENDED:
            order = self._discard(order, head.reason)
            order = replace(order, head=self._limits.backoff.after(order.head, head, self._now_ms))
            self._tell_wait(order, None, order.head)
            return order
        return replace(order, head=self._recovered(order.head, head))

    def _build(self, order: ClusterOrder, desired: DesiredCluster) -> ClusterOrder:
        if self._waits(order.head) or self._builds_left <= 0:
            return order
        self._builds_left -= 1
        order = replace(
            order, wanted=True, executor=self._executor, generation=order.generation + 1, cpus_per_pod=desired.cpus_per_pod
        )
        self._act(ActionKind.BUILD, order, reason=order.head.reason)
        return order

    def _look_at_pods(self, order: ClusterOrder, facts: ActualCluster) -> ClusterOrder:
        slots = []
        leaving = [pod for pod in order.leaving if pod in facts.pods and facts.pods[pod].phase is not Phase.ENDED]
        heard = sum(self._node(pod).joined for pod in order.pods)
        for slot in order.slots:
            if slot.pod is None:
                slots.append(slot)
                continue
            pod, node, fact = slot.pod, self._node(slot.pod), facts.pods.get(slot.pod)
            if fact is None and facts.revision < order.revision:
                slots.append(slot)  # the executor has not read the order yet
                continue
            end = self._end(pod, fact or ProcessFact(Phase.ENDED, self._now_ms, reason="it was never started"), heard)
            if end is not None:
                backoff = self._limits.backoff.after(slot.backoff, end, self._now_ms)
                slots.append(replace(slot, pod=None, replaces=pod, backoff=backoff))
                self._tell_wait(order, pod, backoff)
            elif node.leaving and len(leaving) < self._limits.surge:
                leaving.append(pod)
                slots.append(replace(slot, pod=None, replaces=pod, backoff=Backoff(reason="it gave notice")))
            else:
                recovered = self._recovered(slot.backoff, fact) if fact is not None and node.joined else slot.backoff
                slots.append(replace(slot, backoff=recovered))
        return replace(order, slots=tuple(slots), leaving=tuple(leaving))

    def _end(self, pod: str, fact: ProcessFact, heard: int) -> ProcessFact | None:
        """How a pod ended, or why it is given up; None while it is, or may become, what it should be."""
        node = self._node(pod)
        if fact.phase is Phase.ENDED:
            return fact
        if node.joined or node.leaving or fact.phase is not Phase.RUNNING:
            return None
        running_ms = self._now_ms - fact.at_ms
        if node.seen and node.silent_ms > self._limits.silent_ms and heard > 0:
            return replace(fact, ran_ms=running_ms, reason=f"nothing was heard of it for {node.silent_ms / 1000:.0f} s")
        if not node.seen and running_ms > self._limits.join_ms:
            return replace(fact, ran_ms=0, reason=f"it did not join within {self._limits.join_ms / 1000:g} s")
        if not node.seen:
            self._wake(fact.at_ms + self._limits.join_ms + 1)
        return None

    def _resize(self, order: ClusterOrder, desired: DesiredCluster) -> ClusterOrder:
        for slot in order.slots[desired.pods :]:
            if slot.pod is not None:
                self._act(ActionKind.STOP_POD, order, pod=slot.pod, reason=f"{desired.pods} pods are wanted")
        added = tuple(Slot(number) for number in range(len(order.slots), desired.pods))
        return replace(order, slots=order.slots[: desired.pods] + added, cpus_per_pod=desired.cpus_per_pod)

    def _fill(self, order: ClusterOrder, desired: DesiredCluster, facts: ActualCluster | None) -> ClusterOrder:
        slots: list[Slot] = []
        number = order.next_pod
        ahead = self._one_ahead(order, facts)
        for slot in order.slots:
            crowded = self._starts_left <= 0 or (ahead and any(each.pod is not None for each in (*slots, *order.slots)))
            if slot.pod is not None or crowded or self._waits(slot.backoff):
                slots.append(slot)
                continue
            self._starts_left -= 1
            pod = f"{order.cluster}-pod-{number}"
            number += 1
            zone = desired.zones[slot.number % len(desired.zones)] if desired.zones else None
            slots.append(replace(slot, pod=pod, zone=zone))
            if slot.replaces is None:
                self._act(ActionKind.START_POD, order, pod=pod)
            else:
                self._act(ActionKind.REPLACE_POD, order, pod=pod, replaces=slot.replaces, reason=slot.backoff.reason)
        return replace(order, slots=tuple(slots), next_pod=number)

    def _one_ahead(self, order: ClusterOrder, facts: ActualCluster | None) -> bool:
        """In a cluster that was built anew one pod comes before the others, for a while: nothing of it serves until one does."""
        if order.generation == 1 or any(self._node(pod).seen for pod in order.pods):
            return False
        pods = facts.pods if facts is not None and facts.generation == order.generation else {}
        since_ms = min((fact.at_ms for pod, fact in pods.items() if pod in order.pods), default=self._now_ms)
        until_ms = since_ms + self._limits.ahead_ms
        if until_ms > self._now_ms:
            self._wake(until_ms)
        return until_ms > self._now_ms

    def _waits(self, backoff: Backoff) -> bool:
        due_ms = self._limits.backoff.due_ms(backoff, self._now_ms)
        if due_ms is not None:
            self._wake(due_ms)
        return due_ms is not None

    def _tell_wait(self, order: ClusterOrder, pod: str | None, backoff: Backoff) -> None:
        if backoff.not_before_ms > self._now_ms:
            delay_ms = backoff.not_before_ms - self._now_ms
            self._act(ActionKind.BACK_OFF, order, pod=pod, reason=backoff.reason, delay_ms=delay_ms)

    def _recovered(self, backoff: Backoff, fact: ProcessFact) -> Backoff:
        """What has run for a healthy time is forgiven."""
        if not backoff.failures or fact.phase is not Phase.RUNNING:
            return backoff
        healthy_at_ms = fact.at_ms + self._limits.backoff.healthy_ms
        if healthy_at_ms <= self._now_ms:
            return Backoff()
        self._wake(healthy_at_ms)
        return backoff
