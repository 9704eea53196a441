"""A platform as the observation would show it, made up: for tests of screens, and for looking at them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable

from deploy.observation import Series, Snapshot
from deploy.observation.model import BROKER, Model, results_source
from rayline.app_spec import AppSpec
from rayline.bus import LogRecord
from rayline.clusters import (
    ActualCluster,
    ClusterOrder,
    DesiredCluster,
    Entry,
    Lease,
    Phase,
    ProcessFact,
    Slot,
    encode_entry,
)
from rayline.config import Presence, ProcessIdentity, Role
from rayline.events import Event, encode_event
from rayline.lane_record import LaneRecord, encode_lane_record
from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from scheduler.listener import Heard

NOW = 1_000.0
NOW_MS = 1_793_282_400_000
SOURCES = ("apps", "clusters", "events", "settings", "processes", "nodes", "lanes", BROKER)


def record(key: str | None, value: bytes | None, *, at_ms: int = NOW_MS, offset: int = 0, **headers: str) -> LogRecord:
    """A record as it comes from a topic."""
    named = tuple((name, text.encode()) for name, text in headers.items())
    return LogRecord(0, offset, at_ms, None if key is None else key.encode(), value, named)


class StagedPlatform:
    """Owns a model that was told a story: `clusters` clusters of `pods` pods, and some apps under load.

    It is seen as `Observation` is; `time` moves by `after`. Life: made → `told` for changes → `snapshot`, `subscribe`.
    """

    def __init__(self, *, apps: Iterable[str] = ("ocr", "embed", "toxicity"), clusters: int = 2, pods: int = 6) -> None:
        self.model = Model(broker="127.0.0.1:9092", started_ms=NOW_MS - 60_000)
        self.after = 0.0
        self.model.expect(SOURCES)
        self._apps = tuple(apps)
        self._seq = 1
        self._changed = asyncio.Event()
        self._keys = [(f"c{c}", f"c{c}-pod-{p}") for c in range(1, clusters + 1) for p in range(1, pods + 1)]
        for source in SOURCES:
            self.model.source_read(source, NOW_MS)
        for number, app in enumerate(self._apps):
            self._deploy(app, number)
        self._build(clusters, pods)
        self.beat()
        self._tell_events()

    @property
    def now_ms(self) -> int:
        return NOW_MS + round(self.after * 1000)

    def beat(self, *, silent: Iterable[str] = ()) -> None:
        """Every node (`cluster/pod`) but these says that it lives."""
        self._seq += 1
        reports = []
        for number, (cluster, pod) in enumerate(self._keys):
            if f"{cluster}/{pod}" in set(silent):
                continue
            app = self._apps[number % len(self._apps)] if self._apps else "none"
            actor = ActorEndpoint(app, "3", f"a-{pod}", "h", 1, 2, "i")
            busy = 0.5 + 0.49 * math.sin(number)
            load = NodeLoad(
                cores=4.0, own_cpu=4 * busy, host_cpu=min(1.0, busy + 0.05), host_memory=0.4 + busy / 5, jobs_in_flight=number
            )
            cordoned = number == 4
            state = NodeState.DRAINING if number == 7 else NodeState.READY
            reason = "notice: preempted in 30 s" if number == 7 else None
            reports.append(
                NodeReport(
                    cluster,
                    pod,
                    NOW_MS - 3_600_000 * (1 + number),
                    self._seq,
                    state,
                    cpus=4.0,
                    zone=f"zone-{cluster[-1]}",
                    actors=(actor, actor),
                    reason=reason,
                    beat=True,
                    load=load,
                    cordoned=cordoned,
                )
            )
        self.model.take_nodes(Heard(reports, NOW + self.after, NOW + self.after))
        self.model.source_read(BROKER, self.now_ms)
        self.told()

    def told(self) -> None:
        """Something changed: whoever looks sees it."""
        self._changed.set()

    def snapshot(self) -> Snapshot:
        return self.model.snapshot(NOW + self.after, self.now_ms)

    def series(self, app: str | None = None, seconds: int = 900) -> Series:
        return self.model.series(app, self.now_ms, seconds)

    async def subscribe(self) -> AsyncIterator[Snapshot]:
        while True:
            self._changed.clear()
            yield self.snapshot()
            await self._changed.wait()

    def _deploy(self, app: str, number: int) -> None:
        spec = AppSpec(app, "3", "/app", "m:f", sla_seconds=10.0)
        self.model.take_app(record(app, json.dumps(spec.as_dict()).encode()))
        self.model.source_read(results_source(app), NOW_MS)
        self.model.take_offsets(app, dict.fromkeys(range(4), 1000), dict.fromkeys(range(4), 990), NOW_MS - 10_000)
        ends = dict.fromkeys(range(4), 1000 + 2_400 // (number + 1))
        self.model.take_offsets(app, ends, {p: end - 3 * number for p, end in ends.items()}, NOW_MS)
        for second in range(60, -1, -1):
            for job in range(8):
                outcome = "error" if (second + job) % 97 == 1 else "deadline_exceeded" if number == 1 and second == 5 else "ok"
                slow = 2_500 if 20 < second < 28 else 0
                timing = f"queue={40 + 30 * math.sin(second / 5) + slow:.1f},execute={100 * (number + 1) + job * 9}.0"
                result = record(None, b"", at_ms=NOW_MS - second * 1000, outcome=outcome, timing=timing)
                self.model.take_results(app, [result], NOW_MS - second * 1000, skipped=40 if number == 0 else 0)
        self.model.take_dead_letters(app, number * 3, 0)
        presence = Presence(ProcessIdentity(role=Role.LANE, app=app, name="0"))
        self.model.take_applied(record(presence.record_key.decode(), presence.encode()))
        nodes = {
            f"{c}/{p}": {"weight": 1.0 + 0.3 * math.sin(n), "share": 1 / len(self._keys), "running": n % 4, "note": None}
            for n, (c, p) in enumerate(self._keys)
        }
        told = LaneRecord(app, "0", False, len(nodes), nodes)
        self.model.take_lane(record(told.key.decode(), encode_lane_record(told)))

    def _build(self, clusters: int, pods: int) -> None:
        entries: list[Entry] = [Lease(3, "keeper-1")]
        for number in range(1, clusters + 1):
            name = f"c{number}"
            slots = tuple(Slot(p, f"{name}-pod-{p}") for p in range(1, pods + 1))
            facts = {f"{name}-pod-{p}": ProcessFact(Phase.RUNNING, NOW_MS) for p in range(1, pods + 1)}
            wanted = pods + (number == 2)
            entries += [
                DesiredCluster(name, wanted, 4.0),
                ClusterOrder(name, 3, 1, "e", 1, True, 4.0, slots),
                ActualCluster(name, "e", 1, 1, ProcessFact(Phase.RUNNING, NOW_MS), facts),
            ]
        for entry in entries:
            key, value = encode_entry(entry)
            self.model.take_cluster(record(key.decode(), value))

    def _tell_events(self) -> None:
        story = (
            (55, Event("keeper", "lease.taken", "keeper-1", "keeper-1 leads from epoch 3 on")),
            (40, Event("resource", "node.ready", "c1/c1-pod-6", "c1/c1-pod-6 is ready for work")),
            (28, Event("resource", "node.notice", "c2/c2-pod-2", "c2/c2-pod-2 gave notice: no new work", "preempted in 30 s")),
            (22, Event("keeper", "pod.replaced", "c2/c2-pod-7", "c2-pod-7 replaces c2-pod-2: notice")),
            (9, Event("resource", "node.cordoned", "c1/c1-pod-5", "c1/c1-pod-5 was cordoned: no new work")),
        )
        for offset, (ago, event) in enumerate(story):
            self.model.take_event(record(event.subject, encode_event(event), at_ms=NOW_MS - ago * 1000, offset=offset))
