"""What `rayline clusters` shows and `rayline scale` changes."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from deploy.cli.output import table
from deploy.cluster_log import read_clusters, want_clusters
from rayline.bus import KafkaSettings, Publisher
from rayline.clusters import ActualCluster, Backoff, ClusterBook, ClusterOrder, DesiredCluster, Lease, Phase
from rayline.errors import ConfigError

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")


class ClusterState(StrEnum):
    """A cluster in one word."""

    WAITING = "waiting"
    BUILDING = "building"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster: desired, ordered and actual side by side. `reasons` say what is being waited for, and why."""

    cluster: str
    state: ClusterState
    generation: int
    desired_pods: int
    running_pods: int
    head: str
    pods: Sequence[dict[str, Any]]
    reasons: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "state": self.state.value,
            "generation": self.generation,
            "desired_pods": self.desired_pods,
            "running_pods": self.running_pods,
            "head": self.head,
            "pods": list(self.pods),
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """All clusters, and who keeps them."""

    lease: Lease | None
    rows: Sequence[ClusterRow]

    def as_dict(self) -> dict[str, Any]:
        lease = None if self.lease is None else {"holder": self.lease.holder, "epoch": self.lease.epoch}
        return {"keeper": lease, "clusters": [row.as_dict() for row in self.rows]}

    def text(self) -> str:
        keeper = "no keeper has led yet" if self.lease is None else f"led by {self.lease.holder}, epoch {self.lease.epoch}"
        rows = [
            (row.cluster, row.state, row.generation, f"{row.running_pods}/{row.desired_pods}", row.head, "; ".join(row.reasons))
            for row in self.rows
        ]
        return f"{table(('CLUSTER', 'STATE', 'GENERATION', 'PODS', 'HEAD', 'REASON'), rows)}\n\n{keeper}"


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """What `scale` asked for."""

    before: DesiredCluster | None
    cluster: str
    pods: int

    def as_dict(self) -> dict[str, Any]:
        return {"cluster": self.cluster, "pods": self.pods, "pods_before": self.before.pods if self.before is not None else 0}

    def text(self) -> str:
        before = self.before.pods if self.before is not None else 0
        if self.pods == 0:
            return f"{self.cluster}: is being taken down ({before} pods before)"
        return f"{self.cluster}: {self.pods} pods wanted ({before} before); `rayline clusters` shows how far it is"


async def read_cluster_report(settings: KafkaSettings) -> ClusterReport:
    """Read `rayline.clusters` to its end; raises BusError when it cannot be read."""
    return cluster_report(await read_clusters(settings), now_ms=round(time.time() * 1000))


def cluster_report(book: ClusterBook, *, now_ms: int) -> ClusterReport:
    """The book in words; clusters that are neither wanted nor there are left out."""
    names = sorted(book.desired.keys() | {name for name, order in book.orders.items() if order.wanted})
    rows = [_row(name, book.desired.get(name), book.orders.get(name), book.actual.get(name), now_ms) for name in names]
    return ClusterReport(book.lease, rows)


async def scale_cluster(settings: KafkaSettings, cluster: str, *, pods: int, cpus_per_pod: float | None) -> ScaleChange:
    """Write what is wanted.

    Raises:
        ConfigError: the name cannot be a cluster's, or a cluster that does not exist is to be taken down.
        BusError: Kafka refuses.
    """
    if not _NAME.fullmatch(cluster):
        raise ConfigError(f"{cluster!r} cannot be a cluster's name: use lower-case letters, digits and dashes, at most 42")
    before = (await read_clusters(settings)).desired.get(cluster)
    if before is None and pods == 0:
        raise ConfigError(f"there is no cluster {cluster!r} to take down; `rayline clusters` shows those there are")
    wanted = replace(before or DesiredCluster(cluster, pods), pods=pods)
    if cpus_per_pod is not None:
        wanted = replace(wanted, cpus_per_pod=cpus_per_pod)
    async with Publisher(settings=settings, client_id="rayline-scale") as publisher:
        await want_clusters(publisher, [wanted] if pods else [], remove=[] if pods else [cluster])
    return ScaleChange(before, cluster, pods)


def _row(
    name: str, desired: DesiredCluster | None, order: ClusterOrder | None, actual: ActualCluster | None, now_ms: int
) -> ClusterRow:
    order = order or ClusterOrder(cluster=name, epoch=0)
    current = (
        actual if actual is not None and (actual.executor, actual.generation) == (order.executor, order.generation) else None
    )
    facts = {} if current is None else dict(current.pods)
    running = sum(1 for pod in order.pods if pod in facts and facts[pod].phase is Phase.RUNNING)
    head = current.head if current is not None else None
    waits = [
        _wait("the cluster", order.head, now_ms),
        *(_wait(_place(slot.pod, slot.replaces), slot.backoff, now_ms) for slot in order.slots),
    ]
    reasons = [reason for reason in waits if reason is not None]
    if desired is None:
        state = ClusterState.GONE
    elif not order.wanted:
        state = ClusterState.BACKING_OFF if reasons else ClusterState.WAITING
    elif running < desired.pods or head is None or head.phase is not Phase.RUNNING:
        state = ClusterState.BACKING_OFF if reasons else ClusterState.BUILDING
    else:
        state = ClusterState.RUNNING
    pods = [
        {
            "pod": pod,
            "phase": fact.phase.value,
            "leaving": pod in order.leaving,
            "replaces": order.pods[pod].replaces if pod in order.pods else None,
            "reason": fact.reason,
        }
        for pod, fact in sorted(facts.items())
    ]
    return ClusterRow(
        cluster=name,
        state=state,
        generation=order.generation,
        desired_pods=desired.pods if desired is not None else 0,
        running_pods=running,
        head=head.phase.value if head is not None else "none",
        pods=pods,
        reasons=reasons,
    )


def _place(pod: str | None, replaces: str | None) -> str:
    return pod or f"the place of {replaces}"


def _wait(what: str, backoff: Backoff, now_ms: int) -> str | None:
    """Why something waits, or has failed lately; None where nothing is wrong."""
    if backoff.failures == 0:
        return None
    left = (backoff.not_before_ms - now_ms) / 1000
    when = f", next attempt in {left:.1f} s" if left > 0 else ""
    return f"{what}: {backoff.failures} failure(s) in a row{when}: {backoff.reason}"
