"""What `rayline nodes` and `rayline explain node` show: nodes as merged, how the lanes weigh them, and what happened to them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from deploy.config_board import read_record
from deploy.node_watch import NodeWatch
from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.config import SETTINGS
from rayline.config.record import ABSENT, ConfigKey
from rayline.config.setting import Scope
from rayline.errors import FormatError
from rayline.events import Event, decode_event
from rayline.lane_record import REPEAT_SECONDS, LaneRecord, decode_lane_record
from rayline.topics import CONFIG, EVENTS, VIEW
from rayline.view_record import DEFAULT_GROUP
from rayline.waits import together
from scheduler.node_history import EVENT_ID
from scheduler.view import NodeView, Standing, View

_log = logging.getLogger(__name__)

MEMORY_SECONDS: Final = 10.0
LANE_MEMORY_SECONDS: Final = 2 * REPEAT_SECONDS
HISTORY_SECONDS: Final = 24 * 3_600.0
_LOST_AFTER: Final = ConfigKey(Scope.GLOBAL, (), "view.lost_seconds")


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One event of a node as the topic holds it; `at_ms` is the broker's time."""

    at_ms: int
    event: Event

    def as_dict(self) -> dict[str, Any]:
        event = self.event
        return {"at_ms": self.at_ms, "kind": event.kind, "source": event.source, "text": event.text, "reason": event.reason}


@dataclass(frozen=True, slots=True)
class NodeInspection:
    """One node. `lanes` maps `app/lane` to what that lane says of it (`Router.explain_node`)."""

    node: NodeView
    standing: Standing
    beat_seconds_ago: float
    lanes: Mapping[str, Mapping[str, Any]]

    @property
    def left(self) -> bool:
        return self.standing is Standing.GONE

    @property
    def why(self) -> str:
        """The reason of its standing, in words."""
        report = self.node.report
        if self.standing in (Standing.SUSPECT, Standing.LOST):
            return f"no beat for {self.beat_seconds_ago:.0f} s"
        if self.standing is Standing.CORDONED:
            return "cordoned by an operator"
        if report.reason is not None:
            return report.reason
        environments = self._environments_told()
        if environments:
            return environments
        return "no actor serves yet" if self.standing is Standing.STARTING else ""

    def _environments_told(self) -> str:
        """Which environments are not in place yet, and how far they are."""
        load = self.node.report.load
        unready = [one for one in (load.environments if load is not None else ()) if one.phase != "ready"]
        return "; ".join(
            f"environment of {one.app} {one.version}: {one.phase}"
            + (f" {one.share:.0%}" if one.share is not None else "")
            + (f": {one.reason} ({one.remedy})" if one.reason is not None else "")
            for one in unready
        )

    @property
    def weight(self) -> float | None:
        """The mean over the lanes that send to it."""
        weights = [lane["weight"] for lane in self.lanes.values() if isinstance(lane.get("weight"), (int, float))]
        return sum(weights) / len(weights) if weights else None

    @property
    def in_flight(self) -> int | None:
        """Batches that lanes have there; None where no lane tells."""
        running = [lane["running"] for lane in self.lanes.values() if isinstance(lane.get("running"), int)]
        return sum(running) if running else None

    def as_dict(self) -> dict[str, Any]:
        report = self.node.report
        load = report.load
        return {
            "cluster": report.cluster,
            "node": report.node,
            "zone": report.zone,
            "state": str(self.standing),
            "reason": self.why or None,
            "incarnation": report.incarnation,
            "age_seconds": round(max(0.0, time.time() - report.incarnation / 1000), 1),
            "beat_seconds_ago": round(self.beat_seconds_ago, 2),
            "beats": report.beat,
            "cpus": report.cpus,
            "actors": len(report.actors or ()),
            "load": None if load is None else {name: getattr(load, name) for name in _LOAD_SHOWN},
            "environments": [asdict(one) for one in (load.environments if load is not None else ())],
            "in_flight": self.in_flight,
            "jobs_in_flight": None if load is None else load.jobs_in_flight,
            "weight": None if self.weight is None else round(self.weight, 4),
            "lanes": {name: dict(lane) for name, lane in self.lanes.items()},
        }


_LOAD_SHOWN: Final = (
    "cores",
    "host_cpu",
    "own_cpu",
    "host_memory",
    "own_memory_bytes",
    "throttled",
    "cpu_pressure",
    "memory_pressure",
    "io_pressure",
    "disk_free",
    "clock_skew_ms",
)


class NodeInspector:
    """Owns the readers behind these views. Life: `open_inspector` → `nodes`, `find` at any time, `history` when asked."""

    def __init__(self, settings: KafkaSettings, watch: NodeWatch, lanes_log: CompactedLog) -> None:
        self._settings = settings
        self._watch = watch
        self._lanes_log = lanes_log
        self._lanes: dict[tuple[str, str], LaneRecord] = {}

    @property
    def view(self) -> View:
        return self._watch.view

    @property
    def stale_lanes(self) -> list[str]:
        """Lanes that hear nobody, and run on the last view they had."""
        return sorted(f"{record.app}/{record.lane}" for record in self._lanes.values() if record.stale)

    async def read_lanes(self) -> None:
        """Take in what lanes have told since the last time."""
        caught_up = False
        while not caught_up:
            caught_up = self._lanes_log.caught_up.is_set()
            records = await self._lanes_log.getmany(timeout_ms=20)
            for record in records:
                self._take(record)
            caught_up = caught_up and not records

    def nodes(self) -> list[NodeInspection]:
        """All nodes, by key."""
        return [self._inspect(node) for node in self._watch.nodes()]

    def find(self, name: str) -> list[NodeInspection]:
        """Nodes of that name: `cluster/node`, or the node's name alone."""
        return [self._inspect(node) for node in self._watch.nodes() if name in (node.key, node.report.node)]

    def left(self, key: str) -> dict[str, Mapping[str, Any]]:
        """By `app/lane`: how the node left that lane's rotation (`Departures.told`), as long as lanes remember."""
        return {f"{app}/{lane}": record.left[key] for (app, lane), record in self._lanes.items() if key in record.left}

    async def history(self, key: str) -> list[NodeEntry]:
        """What happened to a node within the last day, oldest first; what several resources saw stands there once."""
        since_ms = round((time.time() - HISTORY_SECONDS) * 1000)
        records: list[LogRecord] = []
        async with CompactedLog(settings=self._settings, topic=EVENTS, since_ms=since_ms, client_id="rayline-history") as log:
            while not log.caught_up.is_set():
                records += [record for record in await log.getmany(timeout_ms=100) if record.key == key.encode()]
        return fold_history(records)

    def _inspect(self, node: NodeView) -> NodeInspection:
        now = time.monotonic()
        lanes = {
            f"{app}/{lane}": record.nodes[node.key] for (app, lane), record in self._lanes.items() if node.key in record.nodes
        }
        standing = node.standing(self.view.horizon(now), self.view.lost_after_seconds)
        return NodeInspection(node, standing, max(0.0, now - node.heard), lanes)

    def _take(self, record: LogRecord) -> None:
        try:
            told = decode_lane_record(record.key, record.value) if record.value is not None else None
        except FormatError as error:
            _log.warning("record %d of %s is skipped: %s", record.offset, VIEW, error)
            return
        if told is not None:
            self._lanes[told.app, told.lane] = told


def take_lost_after(view: View, record: LogRecord) -> None:
    """One record of `rayline.config`: where it says when a silent node is lost, the view judges by that."""
    change = read_record(record).change
    if change is not None and change.key == _LOST_AFTER:
        value = change.value_for("")
        view.lost_after_seconds = SETTINGS[_LOST_AFTER.setting].default if value is ABSENT else value


async def _read_lost_after(settings: KafkaSettings, view: View) -> None:
    async with CompactedLog(settings=settings, topic=CONFIG, client_id="rayline-nodes") as log:
        while not log.caught_up.is_set():
            for record in await log.getmany(timeout_ms=20):
                take_lost_after(view, record)


def fold_history(records: Sequence[LogRecord]) -> list[NodeEntry]:
    """Events of one node: records of one identity are one event, and so are two of a kind in a row."""
    entries: list[NodeEntry] = []
    seen: set[bytes] = set()
    for record in records:
        identity = dict(record.headers).get(EVENT_ID)
        if record.value is None or identity in seen:
            continue
        try:
            event = decode_event(record.value)
        except FormatError as error:
            _log.warning("record %d of %s is skipped: %s", record.offset, EVENTS, error)
            continue
        if identity is not None:
            seen.add(identity)
            if entries and entries[-1].event.kind == event.kind:
                continue
        entries.append(NodeEntry(record.timestamp_ms, event))
    return entries


@asynccontextmanager
async def open_inspector(settings: KafkaSettings, *, group: str = DEFAULT_GROUP) -> AsyncIterator[NodeInspector]:
    """With what stood in the topics read; raises BusError when Kafka does not answer or the platform's topics do not exist."""
    watch = NodeWatch(settings, since_seconds=MEMORY_SECONDS, group=group)
    since_ms = round((time.time() - LANE_MEMORY_SECONDS) * 1000)
    await watch.start()
    try:
        async with CompactedLog(settings=settings, topic=VIEW, since_ms=since_ms, client_id="rayline-lane-records") as log:
            inspector = NodeInspector(settings, watch, log)
            await together(watch.caught_up(), inspector.read_lanes(), _read_lost_after(settings, watch.view))
            yield inspector
    finally:
        await watch.close()
