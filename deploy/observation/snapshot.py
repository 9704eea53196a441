"""What an operator looks at, as values: one `Snapshot` holds everything at one moment. What is not known is None, never 0."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.progress import NoProgress


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source of this picture. `read_ms` is when it last answered (None: never yet); `problem` why it does not now."""

    source: str
    read_ms: int | None
    problem: str | None

    @property
    def known(self) -> bool:
        return self.read_ms is not None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node. `weight` and `share` (0 to 1) are means over the lanes that send to it, `in_flight` the batches that they have
    there, `jobs_in_flight` what its actors work on. `own_cpu` is in cores, `host_cpu` and `host_memory` 0 to 1."""

    key: str
    cluster: str
    node: str
    zone: str | None
    state: str
    reason: str | None
    incarnation: int
    age_seconds: float
    beat_seconds_ago: float
    interval_seconds: float
    cpus: float | None
    cores: float | None
    own_cpu: float | None
    host_cpu: float | None
    own_memory_bytes: int | None
    host_memory: float | None
    disk_free: float | None
    throttled: float | None
    clock_skew_ms: float | None
    actors: int | None
    apps: tuple[str, ...]
    weight: float | None
    share: float | None
    in_flight: int | None
    jobs_in_flight: int | None
    note: str | None
    cards: tuple[str, ...]

    @property
    def cpu(self) -> float | None:
        """The share of its cores that the node's own processes use."""
        return None if self.own_cpu is None or not self.cores else self.own_cpu / self.cores


@dataclass(frozen=True, slots=True)
class PodRow:
    """One pod of a cluster as what starts processes knows it."""

    pod: str
    phase: str
    leaving: bool
    replaces: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster: what is wanted of it, what there is, and its nodes by state. `share` sums over its nodes."""

    cluster: str
    state: str
    generation: int | None
    desired_pods: int | None
    running_pods: int | None
    head: str | None
    pods: tuple[PodRow, ...]
    nodes: dict[str, int]
    share: float | None
    in_flight: int | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LaneRow:
    """One lane. `told_seconds_ago` is how long ago it last spoke; `stale`: it hears nobody; `silent`: nobody hears it."""

    app: str
    lane: str
    stale: bool
    silent: bool
    told_seconds_ago: float
    nodes: int


@dataclass(frozen=True, slots=True)
class Window:
    """The results of some last seconds. `results` and `outcomes` are scaled up where only a sample was read: `sampled` of them
    were. Latencies (milliseconds, arrival to publishing) are None where nothing came. `misses` passed their deadline. `versions`
    counts the answers of each version of the app, scaled as well, most first."""

    seconds: float
    results: int
    sampled: int
    outcomes: dict[str, int]
    misses: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    versions: dict[str, int] = field(default_factory=dict)

    def version_shares(self) -> list[tuple[str, float]]:
        """Each version that answered, and its share (0 to 1) of all answers, most first."""
        answers = sum(self.versions.values())
        return [(version, count / answers) for version, count in self.versions.items()] if answers else []

    @property
    def per_second(self) -> float:
        return self.results / self.seconds if self.seconds else 0.0

    @property
    def exact(self) -> bool:
        return self.sampled == self.results


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """One partition of an app's requests. `lag` counts the records after the committed offset; `stalled_seconds` is how long it
    has not moved while there is lag (0: it moves)."""

    partition: int
    end: int | None
    committed: int | None
    lag: int | None
    stalled_seconds: float


@dataclass(frozen=True, slots=True)
class AppRow:
    """One app. Rates are per second over the last ten seconds; `windows` maps their length in seconds to what came.

    `dead_letters` counts those in the topic (`dead_letters_exact` False: at least so many). `problem` tells what of it cannot be
    read; what depends on that is None then.
    """

    app: str
    version: str
    sla_seconds: float
    actors: int
    nodes: int
    lanes: int
    rate_in: float | None
    rate_out: float | None
    lag: int | None
    partitions: tuple[PartitionRow, ...]
    windows: dict[int, Window]
    dead_letters: int | None
    dead_letters_exact: bool
    last_result_ms: int | None
    problem: str | None

    @property
    def recent(self) -> Window | None:
        """The shortest window."""
        return self.windows[min(self.windows)] if self.windows else None


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event; `at_ms` is the broker's time. `mark` is its short name on a chart, None where it belongs on none."""

    at_ms: int
    offset: int
    source: str
    kind: str
    subject: str
    text: str
    reason: str | None
    mark: str | None


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One key that is set. `applied`, `overridden` and `rejected` name the living processes that said so of this version."""

    key: str
    version: int
    at_ms: int
    value: Any
    author: str | None
    refusal: str | None
    applied: tuple[str, ...]
    overridden: tuple[str, ...]
    rejected: dict[str, str]


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process as it tells of itself. `problem`: why it cannot read its settings; `silent`: it should have spoken since."""

    process: str
    role: str
    app: str | None
    cluster: str | None
    node: str | None
    told_seconds_ago: float
    silent: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at `at_ms` (the broker's time, epoch milliseconds). Events are newest first."""

    at_ms: int
    broker: str
    answering: bool
    caught_up: bool
    sources: tuple[SourceState, ...] = ()
    stalls: tuple[NoProgress, ...] = ()
    apps: tuple[AppRow, ...] = ()
    clusters: tuple[ClusterRow, ...] = ()
    nodes: tuple[NodeRow, ...] = ()
    lanes: tuple[LaneRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    config: tuple[ConfigRow, ...] = ()
    processes: tuple[ProcessRow, ...] = ()
    keeper: str | None = None
    keeper_epoch: int | None = None
    nodes_stale: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Point:
    """One second of one app (or of all). Latencies are None where nothing came in it."""

    second: int
    results: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    misses: int
    errors: int


@dataclass(frozen=True, slots=True)
class Series:
    """The seconds of a span, oldest first and without gaps, with the events that belong on a chart of it."""

    app: str | None
    points: tuple[Point, ...]
    marks: tuple[EventRow, ...]


@dataclass(frozen=True, slots=True)
class NodePoint:
    """One look at one node (or, summed, at a cluster)."""

    at_ms: int
    weight: float | None
    share: float | None
    in_flight: int | None
    cpu: float | None


@dataclass(frozen=True, slots=True)
class NodeSeries:
    """A node's (or cluster's) looks, oldest first."""

    key: str
    points: tuple[NodePoint, ...] = field(default_factory=tuple)
