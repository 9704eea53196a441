"""The view: what is known of all nodes of all clusters, merged from reports. Pure; time comes in as an argument.

Merging depends neither on the order of reports, nor on how often one arrives, nor on how many resources passed it on: a larger
incarnation replaces a smaller one, within one incarnation the state only moves forward, and each other fact comes from the
report with the largest number for it. A merged report (`View.reports`) carries these numbers along, and its age.

Proof of life are the beats of the node's own agent, once it has sent one: a frozen pod is suspect though its gateway still
reports it. Silence of everybody at once is our own deafness: the last view stays in force, marked stale.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rayline.reports import ActorEndpoint, FactSeqs, NodeLoad, NodeReport, NodeState

# Three beats were missed, and half a beat's time for the way here.
SUSPECT_AFTER_BEATS: Final = 3.5
SUSPECT_AFTER_SECONDS: Final = SUSPECT_AFTER_BEATS
# Deafness must show before the first node seems silent: two beats may be missing from everybody.
STALE_AFTER_SECONDS: Final = 2.0
LOST_AFTER_SECONDS: Final = 30.0
FORGET_AFTER_SECONDS: Final = 600.0


class Standing(StrEnum):
    """How a node stands: what it says of itself, and what its silence says. Only `ready` ones get work."""

    STARTING = "starting"
    READY = "ready"
    CORDONED = "cordoned"
    SUSPECT = "suspect"
    LOST = "lost"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as merged. `heard` is the monotonic time (seconds) of its last proof of life."""

    report: NodeReport
    heard: float

    @property
    def key(self) -> str:
        return self.report.key

    def suspect(self, at: float) -> bool:
        """It had missed three of its beats by then; `at` is `View.horizon`, or now where everybody is known to be heard."""
        return at - self.heard > SUSPECT_AFTER_BEATS * self.report.interval_ms / 1000

    def standing(self, at: float, lost_after_seconds: float = LOST_AFTER_SECONDS) -> Standing:
        """As it stood at `View.horizon`; `lost_after_seconds` is the view's."""
        report = self.report
        return _standing(report.state, report.cordoned, at - self.heard, report.interval_ms, lost_after_seconds)


class View:
    """Owns the merged nodes, and when this process last heard anybody at all. Does not own weights or what is in flight.

    `beat_seconds` is how often somebody is heard when all is well: the beats' interval, or that of the resources.
    `lost_after_seconds` of silence, and never before it is suspect, a node is given up. Both may change at any time.
    """

    def __init__(self, *, beat_seconds: float = 1.0, lost_after_seconds: float = LOST_AFTER_SECONDS) -> None:
        self.beat_seconds = beat_seconds
        self.lost_after_seconds = lost_after_seconds
        self._nodes: dict[str, NodeFacts] = {}
        self._revisions: OrderedDict[str, int] = OrderedDict()  # by node, the last one that touched it, in their order
        self._revision = 0
        self._order: list[NodeFacts] | None = []
        self._ears = -math.inf
        self._next_forgetting = 0.0

    def apply(self, reports: Iterable[NodeReport], now: float, *, ears: float | None = None) -> set[str]:
        """Merge reports that were sent at `now` (monotonic seconds); returns the nodes of which more is new than a beat.

        `ears` is when the sender could hear everybody's beats: by default `now`, a resource tells its own time, and -inf
        stands for single pieces of news, which say nothing about the silence of others.
        """
        changed = set()
        heard_any = False
        for report in reports:
            heard_any = True
            heard = now - report.age_ms / 1000
            key = f"{report.cluster}/{report.node}"
            self._touch(key)
            node = self._nodes.get(key)
            if node is None or report.incarnation > node.incarnation:
                node = self._nodes[key] = NodeFacts(key, report, heard)
                self._order = None
                changed.add(key)
            elif report.incarnation == node.incarnation:
                silent = now - node.heard > SUSPECT_AFTER_BEATS * node.interval_ms / 1000
                if node.merge(report, heard) or (silent and now - node.heard <= SUSPECT_AFTER_BEATS * node.interval_ms / 1000):
                    changed.add(key)
        if heard_any or ears is not None:
            self._ears = max(self._ears, now if ears is None else ears)
        if now >= self._next_forgetting:
            self._next_forgetting = now + FORGET_AFTER_SECONDS / 10
            changed |= self._forget(now)
        return changed

    def copy(self) -> View:
        """Another view that knows the same, and goes its own way from here on."""
        other = View(beat_seconds=self.beat_seconds, lost_after_seconds=self.lost_after_seconds)
        other._nodes = {key: copy(node) for key, node in self._nodes.items()}
        other._order = None
        other._revisions, other._revision = self._revisions.copy(), self._revision
        other._ears, other._next_forgetting = self._ears, self._next_forgetting
        return other

    @property
    def revision(self) -> int:
        """Grows with each report."""
        return self._revision

    def changed_since(self, revision: int) -> list[str]:
        """Nodes of which anything was heard, since the view had that revision; a forgotten one is not among them."""
        keys = []
        for key in reversed(self._revisions):
            if self._revisions[key] <= revision:
                break
            keys.append(key)
        return keys

    @property
    def ears(self) -> float:
        """When beats were last heard (monotonic seconds); -inf before the first."""
        return self._ears

    def stale(self, now: float) -> bool:
        """Nobody is heard, so that silence says nothing about any node."""
        return now - self._ears > STALE_AFTER_SECONDS * self.beat_seconds

    def horizon(self, now: float) -> float:
        """The moment at which silence is judged: now, or while the view is stale, when we last heard anybody."""
        return self._ears if self.stale(now) else now

    def keys(self) -> Iterable[str]:
        """All nodes' keys."""
        return self._nodes.keys()

    def node(self, key: str) -> NodeFacts | None:
        """One incarnation's facts as they are merged, which go on changing; another incarnation is another object."""
        return self._nodes.get(key)

    def nodes(self) -> list[NodeView]:
        """All nodes, by key."""
        return [node.view() for node in self._sorted()]

    def get(self, key: str) -> NodeView | None:
        node = self._nodes.get(key)
        return None if node is None else node.view()

    def suspect(self, key: str, now: float) -> bool:
        """Whether the node fell silent while others are heard."""
        node = self._nodes.get(key)
        return node is not None and node.silent(self.horizon(now))

    def standing(self, key: str, now: float) -> Standing | None:
        """How the node stands, or None where it is not known."""
        node = self._nodes.get(key)
        return None if node is None else node.standing(self.horizon(now), self.lost_after_seconds)

    def standings(self, now: float) -> list[tuple[str, int, Standing]]:
        """Key, incarnation and standing of all nodes."""
        horizon = self.horizon(now)
        lost_after = self.lost_after_seconds
        return [(key, node.incarnation, node.standing(horizon, lost_after)) for key, node in self._nodes.items()]

    def reports(self, now: float, keys: Iterable[str] | None = None) -> list[NodeReport]:
        """All nodes (or these) as merged reports, which another view takes in with the same outcome as what they are made of."""
        nodes = self._sorted() if keys is None else [self._nodes[key] for key in sorted(keys) if key in self._nodes]
        return [node.report(now) for node in nodes]

    def beats(self, now: float, whole: Collection[str] = ()) -> list[NodeReport]:
        """All nodes as merged reports of what each beat brings: life, state, reason and load. Those in `whole` are complete."""
        return [node.report(now, beat_only=node.key not in whole) for node in self._sorted()]

    def _touch(self, key: str) -> None:
        self._revision += 1
        self._revisions[key] = self._revision
        self._revisions.move_to_end(key)

    def _sorted(self) -> list[NodeFacts]:
        if self._order is None:
            self._order = [self._nodes[key] for key in sorted(self._nodes)]
        return self._order

    def _forget(self, now: float) -> set[str]:
        """Drop nodes of which nothing was heard for long; while nobody is heard, none."""
        horizon = self.horizon(now)
        long_silent = {key for key, node in self._nodes.items() if horizon - node.heard > FORGET_AFTER_SECONDS}
        for key in long_silent:
            del self._nodes[key]
            del self._revisions[key]
        if long_silent:
            self._order = None
        return long_silent


class NodeFacts:
    """One incarnation of a node: each fact beside the number of the report that it comes from.

    Of two reports with one number (from two reporters) the larger value counts, so that their order does not.
    """

    __slots__ = (
        "_actors_seq",
        "_cordoned_seq",
        "_cpus_seq",
        "_load_seq",
        "_reason_seq",
        "_view",
        "_zone_seq",
        "actors",
        "beat",
        "beat_seq",
        "cluster",
        "cordoned",
        "cpus",
        "heard",
        "incarnation",
        "interval_ms",
        "key",
        "load",
        "name",
        "reason",
        "seq",
        "state",
        "zone",
    )

    def __init__(self, key: str, report: NodeReport, heard: float) -> None:
        self.key = key
        self.cluster = report.cluster
        self.name = report.node
        self.incarnation = report.incarnation
        self.state = report.state
        self.seq = -1
        self.beat, self.beat_seq, self.heard, self.interval_ms = False, -1, -math.inf, report.interval_ms
        self.actors: tuple[ActorEndpoint, ...] | None = None
        self.cpus: float | None = None
        self.zone: str | None = None
        self.reason: str | None = None
        self.load: NodeLoad | None = None
        self.cordoned: bool | None = None
        self._actors_seq = self._cpus_seq = self._zone_seq = self._reason_seq = self._load_seq = self._cordoned_seq = -1
        self._view: NodeView | None = None
        self.merge(report, heard)

    def merge(self, report: NodeReport, heard: float) -> bool:
        """Take in a report of the same incarnation; True when more is new than a beat and its load."""
        seqs, seq = report.seqs, report.seq
        self._view = None
        if seq > self.seq:
            self.seq = seq
        self._live(report.beat, seq if seqs is None else seqs.beat, heard, report.interval_ms)
        changed = self._reason(report.state, seq if seqs is None else seqs.reason, report.reason)
        if report.actors is not None:
            number = seq if seqs is None else seqs.actors
            if number > self._actors_seq or (number == self._actors_seq and repr(report.actors) > repr(self.actors)):
                changed |= self.actors != report.actors
                self.actors, self._actors_seq = report.actors, number
        if report.cpus is not None:
            number = seq if seqs is None else seqs.cpus
            if number > self._cpus_seq or (number == self._cpus_seq and (self.cpus is None or report.cpus > self.cpus)):
                changed |= self.cpus != report.cpus
                self.cpus, self._cpus_seq = report.cpus, number
        if report.zone is not None:
            number = seq if seqs is None else seqs.zone
            if number > self._zone_seq or (number == self._zone_seq and report.zone > (self.zone or "")):
                changed |= self.zone != report.zone
                self.zone, self._zone_seq = report.zone, number
        if report.cordoned is not None:
            number = seq if seqs is None else seqs.cordoned
            if number > self._cordoned_seq or (number == self._cordoned_seq and report.cordoned):
                changed |= self.cordoned != report.cordoned
                self.cordoned, self._cordoned_seq = report.cordoned, number
        if report.load is not None:
            number = seq if seqs is None else seqs.load
            if number > self._load_seq or (number == self._load_seq and repr(report.load) > repr(self.load)):
                self.load, self._load_seq = report.load, number
        return changed

    @property
    def said_seq(self) -> int:
        """The number of the report that its state and reason come from."""
        return self._reason_seq

    @property
    def silent_after(self) -> float:
        """From when on it is silent (monotonic seconds), if nothing is heard of it before."""
        return self.heard + SUSPECT_AFTER_BEATS * self.interval_ms / 1000

    def silent(self, at: float) -> bool:
        return at - self.heard > SUSPECT_AFTER_BEATS * self.interval_ms / 1000

    def standing(self, at: float, lost_after_seconds: float) -> Standing:
        return _standing(self.state, self.cordoned, at - self.heard, self.interval_ms, lost_after_seconds)

    def view(self) -> NodeView:
        if self._view is None:
            self._view = NodeView(self._report(age_ms=0), self.heard)
        return self._view

    def report(self, now: float, *, beat_only: bool = False) -> NodeReport:
        """Merged, as it is passed on at `now`; with `beat_only` without what seldom changes."""
        return self._report(age_ms=max(0, round((now - self.heard) * 1000)), beat_only=beat_only)

    def _report(self, *, age_ms: int, beat_only: bool = False) -> NodeReport:
        return NodeReport(
            self.cluster,
            self.name,
            self.incarnation,
            self.seq,
            self.state,
            None if beat_only else self.cpus,
            None if beat_only else self.zone,
            None if beat_only else self.actors,
            self.reason,
            self.beat,
            age_ms,
            self.load,
            self.cordoned,
            self.interval_ms,
            FactSeqs(
                self.beat_seq,
                self._actors_seq,
                self._cpus_seq,
                self._zone_seq,
                self._reason_seq,
                self._load_seq,
                self._cordoned_seq,
            ),
        )

    def _live(self, beat: bool, seq: int, heard: float, interval_ms: int) -> None:
        """The newest beat counts, and of its copies the one that was on the way for the shortest time."""
        if (beat, seq, -heard, interval_ms) > (self.beat, self.beat_seq, -self.heard, self.interval_ms):
            self.beat, self.beat_seq, self.heard, self.interval_ms = beat, seq, heard, interval_ms

    def _reason(self, state: NodeState, seq: int, reason: str | None) -> bool:
        """The reason belongs to the latest state, and there to the newest report."""
        if (state, seq, reason or "") <= (self.state, self._reason_seq, self.reason or ""):
            return False
        changed = state is not self.state or (reason or None) != self.reason
        self.state, self._reason_seq, self.reason = state, seq, reason or None
        return changed


def _standing(
    state: NodeState, cordoned: bool | None, silent_seconds: float, interval_ms: int, lost_after_seconds: float
) -> Standing:
    if state is NodeState.GONE:
        return Standing.GONE
    silent = silent_seconds > SUSPECT_AFTER_BEATS * interval_ms / 1000
    if silent and silent_seconds > lost_after_seconds:
        return Standing.LOST
    if state is NodeState.DRAINING:
        return Standing.DRAINING
    if silent:
        return Standing.SUSPECT
    if cordoned:
        return Standing.CORDONED
    return Standing.READY if state is NodeState.READY else Standing.STARTING
