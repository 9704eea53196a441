"""Everything that an operator looks at, folded from records with their times into snapshots.

Pure: `now` is monotonic seconds, `now_ms` the broker's epoch milliseconds; no clock and no Kafka in here. Memory is bounded by
the number of nodes, apps and keys, each of which has a limit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from deploy.cluster_report import cluster_report
from deploy.config_board import LastWord
from deploy.node_inspection import take_lost_after
from deploy.observation.app_meter import AppMeter
from deploy.observation.fleet import Fleet, total
from deploy.observation.journal import EventBook, SettingsBook, lanes_of, process_rows
from deploy.observation.latency import SPAN_SECONDS, ResultMeter
from deploy.observation.snapshot import (
    AppRow,
    ClusterRow,
    LaneRow,
    NodeRow,
    NodeSeries,
    PodRow,
    Series,
    Snapshot,
    SourceState,
)
from deploy.progress import (
    BROKER_SILENT_MS,
    NoProgress,
    Silence,
    idle_apps,
    overdue,
    process_stalls,
    silent_broker,
    stuck_partitions,
    unheard_nodes,
)
from rayline.app_spec import AppSpec
from rayline.bus import LogRecord
from rayline.clusters import ClusterBook
from rayline.errors import FormatError
from rayline.lane_record import REPEAT_SECONDS, decode_lane_record
from rayline.stalls import StallKind
from rayline.topics import APPS, CLUSTERS, VIEW
from scheduler.listener import Heard
from scheduler.view import Standing

_log = logging.getLogger(__name__)

MAX_APPS: Final = 200
_LANE_SILENT_MS: Final = round(1.5 * REPEAT_SECONDS * 1000)
_LANE_FORGOTTEN_MS: Final = 600_000
BROKER: Final = "broker"


class Model:
    """Owns what is known. Life: `take_…` and `source_…` in any order; `snapshot`, `series` at any time."""

    def __init__(self, *, broker: str, started_ms: int) -> None:
        self.fleet = Fleet()
        self.events = EventBook()
        self.settings = SettingsBook(self.events)
        self.book = ClusterBook()
        self.apps: dict[str, AppMeter] = {}
        self._all = ResultMeter()
        self._broker = broker
        self._started_ms = started_ms
        self._sources: dict[str, SourceState] = {}
        self._answering_since_ms = started_ms
        self._caught_up = False
        self.version = 0

    def expect(self, sources: Iterable[str]) -> None:
        """Sources that belong to the picture: until each has answered once, it is not whole."""
        for source in sources:
            self._sources.setdefault(source, SourceState(source, None, None))

    def source_read(self, source: str, now_ms: int) -> None:
        """The source answered."""
        known = self._sources.get(source)
        if source == BROKER and known is not None and now_ms - (known.read_ms or 0) > BROKER_SILENT_MS:
            self._answering_since_ms = now_ms
        self._sources[source] = SourceState(source, now_ms, None)
        if known is None or known.read_ms is None or known.problem is not None:
            self.version += 1

    def source_failed(self, source: str, problem: str) -> None:
        """The source does not answer; what it told stays, and grows old."""
        known = self._sources.get(source)
        self._sources[source] = SourceState(source, known.read_ms if known is not None else None, problem)
        self.version += 1

    def forget_source(self, source: str) -> None:
        self._sources.pop(source, None)

    def take_nodes(self, heard: Heard) -> None:
        self.fleet.take_nodes(heard)
        self.version += 1

    def take_lane(self, record: LogRecord) -> None:
        """A record of `rayline.view` that may be a lane's."""
        if record.value is None:
            parts = (record.key or b"").decode("utf-8", "replace").split("/")
            if len(parts) == 3:
                self.fleet.forget_lane(parts[1], parts[2])
            return
        try:
            told = decode_lane_record(record.key, record.value)
        except FormatError as error:
            _log.warning("record %d of %s is skipped: %s", record.offset, VIEW, error)
            return
        if told is not None:
            self.fleet.take_lane(told, record.timestamp_ms)
            self.version += 1

    def take_app(self, record: LogRecord) -> None:
        """A record of `rayline.apps`; an app that cannot be read keeps its last good version."""
        name = (record.key or b"").decode("utf-8", "replace")
        self.version += 1
        if record.value is None:
            self.apps.pop(name, None)
            return
        try:
            spec = AppSpec.from_dict(json.loads(record.value))
        except (ValueError, AttributeError, FormatError) as error:
            _log.warning("app %r in %s cannot be read and is left as it was: %s", name, APPS, error)
            return
        if name in self.apps:
            self.apps[name].spec = spec
        elif len(self.apps) < MAX_APPS:
            self.apps[name] = AppMeter(spec)

    def take_cluster(self, record: LogRecord) -> None:
        """A record of `rayline.clusters`."""
        try:
            self.version += self.book.apply(record.key, record.value)
        except FormatError as error:
            _log.warning("record %d of %s is skipped: %s", record.offset, CLUSTERS, error)

    def take_event(self, record: LogRecord) -> None:
        self.events.take(record)
        self.version += 1

    def take_config(self, record: LogRecord) -> None:
        self.settings.take_config(record)
        take_lost_after(self.fleet.view, record)
        self.version += 1

    def take_applied(self, record: LogRecord) -> None:
        self.settings.take_applied(record)
        self.version += 1

    def take_results(self, app: str, records: Iterable[LogRecord], now_ms: int, *, skipped: int = 0, seconds: int = 1) -> None:
        """What was read of an app's results, and how many of the last `seconds` were not."""
        meter = self.apps.get(app)
        if meter is None:
            return
        for record in records:
            found = meter.take_result(record, now_ms)
            if found is not None:
                outcome, latency_ms, missed = found
                self._all.take(at_ms=record.timestamp_ms, outcome=outcome, latency_ms=latency_ms, missed=missed, now_ms=now_ms)
                self.version += 1
        if skipped:
            meter.results.skip(skipped, now_ms, seconds)
            self._all.skip(skipped, now_ms, seconds)

    def take_dead_letters(self, app: str, count: int, skipped: int) -> None:
        meter = self.apps.get(app)
        if meter is None:
            return
        meter.dead_letters = (meter.dead_letters or 0) + count + skipped
        meter.dead_letters_exact = meter.dead_letters_exact and not skipped
        self.version += bool(count or skipped)

    def take_offsets(self, app: str, ends: Mapping[int, int], starts: Mapping[int, int], now_ms: int) -> None:
        meter = self.apps.get(app)
        if meter is not None:
            meter.problem = None
            meter.take_offsets(ends, starts, now_ms)
            self.version += 1

    def lose_offsets(self, app: str, problem: str) -> None:
        meter = self.apps.get(app)
        if meter is not None:
            meter.lose_offsets(problem)
            self.version += 1

    def tick(self, now: float, now_ms: int) -> None:
        """Once a second: remember a look at the nodes, drop what is old."""
        self._all.forget(now_ms)
        for meter in self.apps.values():
            meter.results.forget(now_ms)
        self.settings.forget(now_ms)
        for lane in [lane for lane, (_, at_ms) in self.fleet.lanes.items() if now_ms - at_ms > _LANE_FORGOTTEN_MS]:
            self.fleet.forget_lane(*lane)
        if self.fleet.due(now_ms):
            self.fleet.look(self.fleet.rows(now, now_ms), now_ms)

    def series(self, app: str | None, now_ms: int, seconds: int = SPAN_SECONDS) -> Series:
        """Latencies and events of the last seconds, of one app or (None) of all. Empty for an app that is not known."""
        if app is None:
            meter: ResultMeter | None = self._all
        else:
            meter = self.apps[app].results if app in self.apps else None
        points = () if meter is None else meter.points(seconds, now_ms)
        return Series(app, points, self.events.marks(now_ms - seconds * 1000))

    def node_series(self, key: str) -> NodeSeries:
        """Weight, share, in flight and CPU of a node (`cluster/node`) or a cluster over the last 15 minutes."""
        return self.fleet.series(key)

    def snapshot(self, now: float, now_ms: int) -> Snapshot:
        """Everything at this moment."""
        sources = tuple(self._sources[name] for name in sorted(self._sources))
        self._caught_up = self._caught_up or (bool(sources) and all(source.known for source in sources))
        nodes = self.fleet.rows(now, now_ms)
        words = self.settings.last_words(now_ms, self._answering_since_ms)
        lanes = self._lanes(lanes_of(words.values()), now_ms)
        broker = self._sources.get(BROKER)
        answering = broker is not None and broker.problem is None and broker.read_ms is not None
        apps = self._apps(nodes, lanes, now_ms)
        return Snapshot(
            at_ms=now_ms,
            broker=self._broker,
            answering=answering,
            caught_up=self._caught_up,
            sources=sources,
            stalls=tuple(self._stalls(sources, words.values(), now, now_ms)),
            apps=apps,
            clusters=self._clusters(nodes, now_ms),
            nodes=nodes,
            lanes=lanes,
            events=self.events.newest_first(),
            config=self.settings.rows(words.keys()),
            processes=process_rows(words.values()),
            keeper=self.book.lease.holder if self.book.lease is not None else None,
            keeper_epoch=self.book.lease.epoch if self.book.lease is not None else None,
            nodes_stale=bool(nodes) and self.fleet.view.stale(now),
        )

    def _apps(self, nodes: Iterable[NodeRow], lanes: Iterable[LaneRow], now_ms: int) -> tuple[AppRow, ...]:
        actors = self.fleet.actors()
        ready = {node.key for node in nodes if node.state == Standing.READY.value}
        return tuple(self._app(name, actors.get(name, {}), ready, lanes, now_ms) for name in sorted(self.apps))

    def _app(self, name: str, actors: Mapping[str, int], ready: set[str], lanes: Iterable[LaneRow], now_ms: int) -> AppRow:
        meter = self.apps[name]
        read = self._sources.get(results_source(name))
        windows = meter.windows(now_ms) if read is not None and read.known else {}
        return AppRow(
            app=name,
            version=meter.spec.version,
            sla_seconds=meter.spec.sla_seconds,
            actors=sum(actors.values()),
            nodes=len(actors.keys() & ready),
            lanes=sum(1 for lane in lanes if lane.app == name and not lane.silent),
            rate_in=meter.rate_in,
            rate_out=round(windows[min(windows)].per_second, 2) if windows else None,
            lag=meter.lag,
            partitions=meter.partitions(now_ms),
            windows=windows,
            dead_letters=meter.dead_letters,
            dead_letters_exact=meter.dead_letters_exact,
            last_result_ms=meter.results.last_ms,
            problem=meter.problem or (read.problem if read is not None else None),
        )

    def _clusters(self, nodes: Iterable[NodeRow], now_ms: int) -> tuple[ClusterRow, ...]:
        members: dict[str, list[NodeRow]] = {}
        for node in nodes:
            members.setdefault(node.cluster, []).append(node)
        kept = {row.cluster: row for row in cluster_report(self.book, now_ms=now_ms).rows}
        rows = []
        for name in sorted(kept.keys() | members.keys()):
            ours, row = members.get(name, []), kept.get(name)
            standings = [node.state for node in ours]
            present = [node for node in ours if node.state != Standing.GONE.value]
            if row is None and not present:
                continue
            rows.append(
                ClusterRow(
                    cluster=name,
                    state=row.state.value if row is not None else "reporting",
                    generation=row.generation if row is not None else None,
                    desired_pods=row.desired_pods if row is not None else None,
                    running_pods=row.running_pods if row is not None else None,
                    head=row.head if row is not None else None,
                    pods=tuple(PodRow(**pod) for pod in row.pods) if row is not None else (),
                    nodes={state: standings.count(state) for state in sorted(set(standings))},
                    share=total(node.share for node in present),
                    in_flight=total(node.in_flight for node in present),
                    reasons=tuple(row.reasons) if row is not None else (),
                )
            )
        return tuple(rows)

    def _lanes(self, present: Mapping[tuple[str, str], LastWord], now_ms: int) -> tuple[LaneRow, ...]:
        """A lane is silent when it neither tells of its weights nor of itself as often as it should."""
        rows = []
        for app, lane in sorted(self.fleet.lanes.keys() | present.keys()):
            record, told_ms = self.fleet.lanes.get((app, lane), (None, 0))
            silent = now_ms - told_ms > _LANE_SILENT_MS
            if (app, lane) in present:
                word = present[app, lane]
                silent = overdue(word)
                told_ms = max(told_ms, now_ms - round(word.silent_seconds * 1000))
            elif silent and app not in self.apps:
                continue
            ago = round(max(0.0, (now_ms - told_ms) / 1000), 1)
            stale = record.stale if record is not None else False
            rows.append(LaneRow(app, lane, stale, silent, ago, record.nodes_total if record is not None else 0))
        return tuple(rows)

    def _stalls(self, sources: Iterable[SourceState], words: Collection[LastWord], now: float, now_ms: int) -> list[NoProgress]:
        """What stands still. While no broker answers that is all that is known: nothing else could be seen to move."""
        broker = self._sources.get(BROKER)
        if broker is not None:
            answered_ms = broker.read_ms if broker.read_ms is not None else self._started_ms
            silent = silent_broker(self._broker, answered_ms, now_ms=now_ms)
            if silent:
                return silent
        found = [
            NoProgress(StallKind.SOURCE, one.source, one.read_ms or self._started_ms, f"{one.source}: {one.problem}")
            for one in sources
            if one.problem is not None
        ]
        if broker is None or broker.problem is not None or broker.read_ms is None:
            return found
        unheard = unheard_nodes(self.fleet.view.ears, now, now_ms=now_ms)
        # Processes are not asked: their addresses come from a topic, and may be out of reach.
        told = [stall for word in words for stall in process_stalls(word, Silence.OUT_OF_REACH, now_ms=now_ms) or ()]
        found += unheard
        found += [stall for stall in told if not (unheard and stall.kind is StallKind.NODES)]
        worked_on = {app for app, _ in lanes_of(words).keys() | self.fleet.lanes.keys()}
        if all(self._known(source) for source in ("processes", "lanes")):
            found += idle_apps(((name, meter.lag) for name, meter in sorted(self.apps.items())), worked_on, now_ms=now_ms)
        for name in sorted(self.apps.keys() & worked_on):
            meter = self.apps[name]
            backlogs = meter.backlogs(self._answering_since_ms)
            found += stuck_partitions(name, backlogs, told, sla_seconds=meter.spec.sla_seconds, now_ms=now_ms)
        return found

    def _known(self, source: str) -> bool:
        """Whether it was read once; what nobody expects is."""
        state = self._sources.get(source)
        return state is None or state.known


def results_source(app: str) -> str:
    """The name of an app's results among the sources."""
    return f"results of {app}"
