"""Nodes as merged, joined with what lanes say of them, and their looks over time. Pure; time comes in as an argument."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeGuard

from deploy.node_inspection import NodeInspection
from deploy.observation.snapshot import NodePoint, NodeRow, NodeSeries
from rayline.lane_record import LaneRecord
from rayline.reports import NodeLoad, NodeState
from scheduler.listener import Heard
from scheduler.view import NodeView, Standing, View

LOOK_SECONDS: Final = 5.0
LOOKS: Final = 180
MAX_NODES: Final = 2_000
MAX_LANES: Final = 1_000
_FIELDS: Final = 4
_HUGE: Final = 1e12
_NO_LOAD: Final = NodeLoad()


class _Told:
    """What the lanes say of one node, as sums: a lane's new word replaces its old one without asking the others."""

    __slots__ = ("lanes", "notes", "running", "running_lanes", "share", "share_lanes", "weight", "weight_lanes")

    def __init__(self) -> None:
        self.weight = self.share = 0.0
        self.lanes = self.weight_lanes = self.share_lanes = self.running = self.running_lanes = 0
        self.notes: dict[tuple[str, str], str] = {}

    def count(self, lane: tuple[str, str], node: Mapping[str, Any], sign: int) -> None:
        """Add (1) what a lane says, or take it back (-1)."""
        weight, share, running, note = node.get("weight"), node.get("share"), node.get("running"), node.get("note")
        self.lanes += sign
        if _usable(weight):
            self.weight += sign * weight
            self.weight_lanes += sign
        if _usable(share):
            self.share += sign * share
            self.share_lanes += sign
        if isinstance(running, int) and _usable(running):
            self.running += sign * int(running)
            self.running_lanes += sign
        if note and isinstance(note, str):
            if sign > 0:
                self.notes[lane] = note
            else:
                self.notes.pop(lane, None)


class Fleet:
    """Owns the view, the last word of each lane, and bounded series of looks at each node and cluster."""

    def __init__(self) -> None:
        self.view = View()
        self.lanes: dict[tuple[str, str], tuple[LaneRecord, int]] = {}
        self._told: dict[str, _Told] = {}
        self._looks: dict[str, array[float]] = {}
        self._look_ms: dict[str, int] = {}
        self._next_look_ms = 0

    def take_nodes(self, heard: Heard) -> None:
        self.view.apply(heard.reports, heard.at, ears=heard.ears)

    def take_lane(self, record: LaneRecord, at_ms: int) -> None:
        self.forget_lane(record.app, record.lane)
        lane = (record.app, record.lane)
        if len(self.lanes) >= MAX_LANES:
            return
        self.lanes[lane] = (record, at_ms)
        for key, node in record.nodes.items():
            self._told.setdefault(key, _Told()).count(lane, node, 1)

    def forget_lane(self, app: str, lane: str) -> None:
        known = self.lanes.pop((app, lane), None)
        if known is None:
            return
        for key, node in known[0].nodes.items():
            told = self._told[key]
            told.count((app, lane), node, -1)
            if told.lanes == 0:
                del self._told[key]

    def rows(self, now: float, now_ms: int) -> tuple[NodeRow, ...]:
        """All nodes by key; `now` is monotonic seconds, `now_ms` the broker's time."""
        horizon, lost_after = self.view.horizon(now), self.view.lost_after_seconds
        return tuple(
            _row(node, node.standing(horizon, lost_after), now, now_ms, self._told.get(node.key, _NOTHING))
            for node in self.view.nodes()
        )

    def due(self, now_ms: int) -> bool:
        """Whether it is time for a look."""
        return now_ms >= self._next_look_ms

    def actors(self) -> dict[str, dict[str, int]]:
        """Number of actors by app and node, of the nodes that have not left."""
        found: dict[str, dict[str, int]] = {}
        for node in self.view.nodes():
            if node.report.state is NodeState.GONE:
                continue
            for actor in node.report.actors or ():
                counts = found.setdefault(actor.app, {})
                counts[node.key] = counts.get(node.key, 0) + 1
        return found

    def look(self, rows: Iterable[NodeRow], now_ms: int) -> None:
        """Remember one look at each node and cluster."""
        self._next_look_ms = now_ms + round(LOOK_SECONDS * 1000)
        clusters: dict[str, list[NodeRow]] = {}
        for row in rows:
            if row.state == Standing.GONE.value:
                continue
            self._remember(row.key, (row.weight, row.share, row.in_flight, row.cpu), now_ms)
            clusters.setdefault(row.cluster, []).append(row)
        for cluster, members in clusters.items():
            cores = total(row.cores for row in members)
            own = total(row.own_cpu for row in members)
            cpu = own / cores if own is not None and cores else None
            sums = (
                total(row.weight for row in members),
                total(row.share for row in members),
                total(row.in_flight for row in members),
            )
            self._remember(cluster, (*sums, cpu), now_ms)
        span_ms = LOOKS * LOOK_SECONDS * 1000
        for key in [key for key, at_ms in self._look_ms.items() if now_ms - at_ms > span_ms]:
            del self._look_ms[key], self._looks[key]

    def series(self, key: str) -> NodeSeries:
        """The looks at a node (`cluster/node`) or a cluster; empty for one that is not known."""
        looks = self._looks.get(key, array("d"))
        width = _FIELDS + 1
        points = []
        for start in range(0, len(looks), width):
            at_ms, weight, share, in_flight, cpu = looks[start : start + width]
            running = _known(in_flight)
            points.append(
                NodePoint(int(at_ms), _known(weight), _known(share), None if running is None else int(running), _known(cpu))
            )
        return NodeSeries(key, tuple(points))

    def _remember(self, key: str, values: tuple[float | None, ...], now_ms: int) -> None:
        if key not in self._looks and len(self._looks) >= MAX_NODES:
            return
        looks = self._looks.setdefault(key, array("d"))
        looks.append(now_ms)
        looks.extend(math.nan if value is None else value for value in values)
        del looks[: -(LOOKS * (_FIELDS + 1))]
        self._look_ms[key] = now_ms


def total(values: Iterable[float | int | None]) -> Any:
    """The sum of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _usable(value: object) -> TypeGuard[int | float]:
    """A number that can be added and taken away again: neither NaN nor beyond all measure."""
    return isinstance(value, (int, float)) and -_HUGE < value < _HUGE


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _row(node: NodeView, standing: Standing, now: float, now_ms: int, told: _Told) -> NodeRow:
    report, load = node.report, node.report.load or _NO_LOAD
    beat_seconds_ago = max(0.0, now - node.heard)
    return NodeRow(
        key=report.key,
        cluster=report.cluster,
        node=report.node,
        zone=report.zone,
        state=standing.value,
        reason=NodeInspection(node, standing, beat_seconds_ago, {}).why or None,
        incarnation=report.incarnation,
        age_seconds=round(max(0.0, (now_ms - report.incarnation) / 1000), 1),
        beat_seconds_ago=round(beat_seconds_ago, 2),
        interval_seconds=report.interval_ms / 1000,
        cpus=report.cpus,
        cores=load.cores,
        own_cpu=load.own_cpu,
        host_cpu=load.host_cpu,
        own_memory_bytes=load.own_memory_bytes,
        host_memory=load.host_memory,
        disk_free=load.disk_free,
        throttled=load.throttled,
        clock_skew_ms=load.clock_skew_ms,
        actors=None if report.actors is None else len(report.actors),
        apps=tuple(sorted({actor.app for actor in report.actors or ()})),
        weight=round(told.weight / told.weight_lanes, 5) if told.weight_lanes else None,
        share=round(told.share / told.share_lanes, 5) if told.share_lanes else None,
        in_flight=told.running if told.running_lanes else None,
        jobs_in_flight=load.jobs_in_flight,
        note=next(iter(told.notes.values()), None),
        cards=tuple(card.kind for card in load.cards),
    )


_NOTHING: Final = _Told()
