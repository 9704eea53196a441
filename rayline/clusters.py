"""Clusters, desired, ordered and actual, as records of `rayline.clusters` (one partition, compacted, JSON with a version).

| key | who writes | what |
|---|---|---|
| `desired/<cluster>` | people (`rayline up`, `rayline scale`) | how many pods; a tombstone: no such cluster |
| `keeper` | the keeper that takes the lease | its epoch: orders of a smaller one, later in the log, count for nothing |
| `order/<cluster>` | the keeper of that epoch | which head and which pods should run, by names that are never used twice |
| `executor` | what starts processes | its identity, new with each of its lives |
| `actual/<cluster>` | the executor | what became of the order |

An order is a state, not a command: carried out twice it does nothing the second time, and a reader needs no more than the last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from rayline.errors import FormatError

_VERSION: Final = 1


class Phase(StrEnum):
    """The life of one process of a cluster."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class DesiredCluster:
    """What people want. Pods are spread over `zones` in turn (none: the executor's own)."""

    cluster: str
    pods: int
    cpus_per_pod: float = 1.0
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may give orders. `epoch` grows by one with each new holder."""

    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class ExecutorIdentity:
    """One life of what starts processes: orders for another life are not its business."""

    executor: str


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often something failed in a row, when it may be tried again (epoch ms), and what was wrong."""

    failures: int = 0
    not_before_ms: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One place for a pod in a cluster. `pod` None: empty at present; `replaces` is the pod that had the place before."""

    number: int
    pod: str | None = None
    zone: str | None = None
    replaces: str | None = None
    backoff: Backoff = Backoff()


@dataclass(frozen=True, slots=True)
class ClusterOrder:
    """What should run of one cluster.

    `generation` counts the clusters built under this name: another one means another head and no pod in common. `wanted` False:
    nothing of it should run. `leaving` are pods that gave notice: they may end by themselves. `next_pod` numbers pods, over all
    generations. `head` is the back-off of building it. `revision` grows with each order for the cluster.
    """

    cluster: str
    epoch: int
    revision: int = 0
    executor: str = ""
    generation: int = 0
    wanted: bool = False
    cpus_per_pod: float = 1.0
    slots: tuple[Slot, ...] = ()
    leaving: tuple[str, ...] = ()
    next_pod: int = 1
    head: Backoff = Backoff()

    @property
    def pods(self) -> dict[str, Slot]:
        """The slots that have a pod, by its name."""
        return {slot.pod: slot for slot in self.slots if slot.pod is not None}


@dataclass(frozen=True, slots=True)
class ProcessFact:
    """What the executor knows of one process. `at_ms` (epoch) is when it entered the phase; of one that ended, `ran_ms` says how
    long it ran, and `noticed` that it left in order after a notice."""

    phase: Phase
    at_ms: int
    ran_ms: int = 0
    noticed: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ActualCluster:
    """What there is of one cluster: its head (of `generation`) and every pod that the executor still knows of.

    `revision` is the newest order that it acts on: a pod of that order which is not listed does not exist.
    """

    cluster: str
    executor: str
    revision: int
    generation: int
    head: ProcessFact | None = None
    pods: Mapping[str, ProcessFact] = field(default_factory=dict)


Entry = Lease | ExecutorIdentity | DesiredCluster | ClusterOrder | ActualCluster
_LEASE: Final = "keeper"
_EXECUTOR: Final = "executor"
_KINDS: Final[dict[str, TypeAdapter[Any]]] = {
    _LEASE: TypeAdapter(Lease),
    _EXECUTOR: TypeAdapter(ExecutorIdentity),
    "desired": TypeAdapter(DesiredCluster),
    "order": TypeAdapter(ClusterOrder),
    "actual": TypeAdapter(ActualCluster),
}
_PREFIXES: Final = {DesiredCluster: "desired", ClusterOrder: "order", ActualCluster: "actual"}


def desired_key(cluster: str) -> bytes:
    """The key of what is wanted of a cluster."""
    return f"desired/{cluster}".encode()


def encode_entry(entry: Entry) -> tuple[bytes, bytes]:
    """Key and value of a record of `rayline.clusters`."""
    if isinstance(entry, Lease):
        key = _LEASE
    elif isinstance(entry, ExecutorIdentity):
        key = _EXECUTOR
    else:
        key = f"{_PREFIXES[type(entry)]}/{entry.cluster}"
    return key.encode(), json.dumps({"v": _VERSION, **asdict(entry)}, ensure_ascii=False).encode()


class ClusterBook:
    """All that `rayline.clusters` says, folded from its records in their order.

    Owns the last word for each key. Does not own the reader. An order of an epoch that has passed is left out: the broker refuses
    its writer already, and nobody should have to trust in that alone.
    """

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.executor: str | None = None
        self.desired: dict[str, DesiredCluster] = {}
        self.orders: dict[str, ClusterOrder] = {}
        self.actual: dict[str, ActualCluster] = {}

    @property
    def epoch(self) -> int:
        """The epoch of the last lease; 0 before the first."""
        return self.lease.epoch if self.lease is not None else 0

    def apply(self, key: bytes | None, value: bytes | None) -> bool:
        """Take one record; whether it changed anything. Raises FormatError on what is no record of this topic."""
        kind, _, cluster = (key or b"").decode("utf-8", "replace").partition("/")
        if kind not in _KINDS:
            raise FormatError(f"the key {key!r} is none of {', '.join(_KINDS)}")
        if value is None:
            tables: dict[str, dict[str, Any]] = {"desired": self.desired, "order": self.orders, "actual": self.actual}
            return tables.get(kind, {}).pop(cluster, None) is not None
        return self.take(_decode(kind, value))

    def take(self, entry: Entry) -> bool:
        """Take one entry; whether it changed anything."""
        if isinstance(entry, Lease):
            changed = entry.epoch > self.epoch
            self.lease = entry if changed else self.lease
            return changed
        if isinstance(entry, ExecutorIdentity):
            changed = entry.executor != self.executor
            self.executor = entry.executor
            return changed
        if isinstance(entry, ClusterOrder):
            known = self.orders.get(entry.cluster)
            if entry.epoch < self.epoch or (known is not None and entry.revision <= known.revision):
                return False
            self.orders[entry.cluster] = entry
            return True
        table: dict[str, Any] = self.desired if isinstance(entry, DesiredCluster) else self.actual
        changed = table.get(entry.cluster) != entry
        table[entry.cluster] = entry
        return changed


def _decode(kind: str, value: bytes) -> Entry:
    try:
        data = json.loads(value)
        if data.pop("v") != _VERSION:
            raise FormatError(f"a {kind} record of another version; this Rayline reads version {_VERSION}")
        entry: Entry = _KINDS[kind].validate_python(data)
    except (ValueError, TypeError, KeyError, AttributeError, ValidationError) as error:
        raise FormatError(f"not a {kind} record: {error}") from error
    return entry
