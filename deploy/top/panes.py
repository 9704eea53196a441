"""What stands in each pane: columns, their widths on a narrow screen, sorting and filtering. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from rich.text import Text

from deploy.observation import AppRow, ClusterRow, EventRow, NodeRow, Snapshot, SourceState, Window
from deploy.observation.latency import WINDOWS
from deploy.top.figures import UNKNOWN, bar, clock, count, duration, share, span, weight
from rayline.results import Outcome
from scheduler.view import Standing

_STATE_STYLES: Final = {
    Standing.READY.value: "green",
    Standing.STARTING.value: "yellow",
    Standing.CORDONED.value: "cyan",
    Standing.SUSPECT.value: "bold red",
    Standing.LOST.value: "bold red",
    Standing.DRAINING.value: "magenta",
    Standing.GONE.value: "dim",
    "running": "green",
    "reporting": "green",
    "building": "yellow",
    "waiting": "yellow",
    "backing off": "bold red",
}
_SHORT_OUTCOMES: Final = {
    Outcome.ERROR.value: "error",
    Outcome.INVALID.value: "invalid",
    Outcome.DEADLINE_EXCEEDED.value: "late",
    Outcome.QUARANTINED.value: "poison",
}
_CPU_BAR_CHARS: Final = 5
_BUSY, _HOT = 0.7, 0.9
_GAP: Final = 2
# The flexible column may grow so far before others of lesser rank get their place.
_FLEX_CHARS: Final = 30
_NARROW_CHARS: Final = 60
_NUMBER: Final = re.compile(r"([0-9]+)")


class PaneName(StrEnum):
    """The panes, in the order of their keys."""

    APPS = "apps"
    CLUSTERS = "clusters"
    NODES = "nodes"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. The smaller its `rank`, the narrower the screen on which it still stands; `flex` takes what is left."""

    title: str
    cell: Callable[[Any], Text | str]
    order: Callable[[Any], Any]
    width: int
    rank: int
    right: bool = False
    flex: bool = False


@dataclass(frozen=True, slots=True)
class Sorting:
    """By which column, and which way."""

    column: int
    descending: bool


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane: where its rows come from, and how each looks. `sources` are those of the snapshot that it depends on."""

    name: PaneName
    title: str
    columns: tuple[Column, ...]
    rows: Callable[[Snapshot], Sequence[Any]]
    key: Callable[[Any], str]
    sorting: Sorting
    sources: tuple[str, ...]
    empty: str

    def shown(self, snapshot: Snapshot, sorting: Sorting, wanted: str) -> list[Any]:
        """Rows in their order; only those in which `wanted` stands somewhere. What is not known comes last, either way."""
        rows = [row for row in self.rows(snapshot) if not wanted or self._holds(row, wanted.lower())]
        order = self.columns[sorting.column].order
        rows.sort(key=self.key)
        known = [row for row in rows if order(row) is not None]
        known.sort(key=order, reverse=sorting.descending)
        return known + [row for row in rows if order(row) is None]

    def fitting(self, width: int) -> tuple[list[int], int]:
        """The columns that have room on `width` characters, and how wide the flexible one is."""
        chosen: list[int] = []
        left = width
        for index in sorted(range(len(self.columns)), key=lambda index: self.columns[index].rank):
            column = self.columns[index]
            wide = min(_FLEX_CHARS, (width - _NARROW_CHARS) // 3) if column.flex else 0
            needed = max(column.width, wide) + _GAP
            if needed <= left:
                chosen.append(index)
                left -= needed
        fixed = sum(self.columns[index].width for index in chosen if not self.columns[index].flex)
        return sorted(chosen), width - fixed - _GAP * len(chosen)

    def trouble(self, snapshot: Snapshot) -> str | None:
        """Why the rows cannot be believed, or are not there yet."""
        found: list[SourceState] = [source for source in snapshot.sources if source.source in self.sources]
        for source in found:
            if source.problem is not None:
                return f"{source.source} cannot be read: {source.problem}"
        return "reading …" if any(not source.known for source in found) else None

    def _holds(self, row: Any, wanted: str) -> bool:
        return any(wanted in str(column.cell(row)).lower() for column in self.columns)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """The order in which people expect names: `pod-2` before `pod-10`."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in _NUMBER.split(name) if part]


def state_text(state: str) -> Text:
    return Text(state, style=_STATE_STYLES.get(state, ""))


def app_pane(window: int = WINDOWS[0]) -> Pane:
    """Apps, as the last `window` seconds show them."""

    def of(app: AppRow) -> Window | None:
        return app.windows.get(window)

    def figure(name: str) -> Callable[[AppRow], Any]:
        return lambda app: None if of(app) is None else getattr(of(app), name)

    def latency(name: str) -> Callable[[AppRow], Text]:
        def cell(app: AppRow) -> Text:
            ms = figure(name)(app)
            near = ms is not None and ms > _BUSY * app.sla_seconds * 1000
            over = ms is not None and ms > app.sla_seconds * 1000
            return Text(duration(ms), style="bold red" if over else "yellow" if near else "")

        return cell

    def rate(app: AppRow) -> str:
        found = of(app)
        return UNKNOWN if found is None else f"{'' if found.exact else '~'}{count(found.per_second)}"

    def misses(app: AppRow) -> Text:
        found = figure("misses")(app)
        return Text(count(found), style="bold red" if found else "")

    def lag(app: AppRow) -> Text:
        stuck = any(one.stalled_seconds > app.sla_seconds for one in app.partitions)
        return Text(count(app.lag), style="bold red" if stuck else "")

    def versions(app: AppRow) -> Text:
        found = of(app)
        shares = found.version_shares() if found is not None else []
        if [version for version, _ in shares] in ([], [app.version]):
            return Text(app.version)
        return Text(", ".join(f"{version} {share(part)}" for version, part in shares), style="yellow")

    def outcomes(app: AppRow) -> Text:
        found = of(app)
        if app.problem is not None:
            return Text(app.problem, style="bold red")
        if found is None or not found.results:
            return Text("no results", style="dim")
        bad = {_SHORT_OUTCOMES[name]: number for name, number in found.outcomes.items() if name in _SHORT_OUTCOMES}
        ok = found.outcomes.get(Outcome.OK.value, 0)
        parts = [Text(f"{name} {count(number)}", style="red") for name, number in bad.items()]
        parts += [Text(f"ok {count(ok)}", style="green")] if ok else []
        return Text(" ").join(parts)

    columns = (
        Column("APP", lambda app: Text(app.app, style="bold"), lambda app: natural(app.app), 14, 0),
        Column("VERSION", versions, lambda app: app.version, 13, 8),
        Column("IN/s", lambda app: count(app.rate_in), lambda app: app.rate_in, 6, 2, right=True),
        Column("OUT/s", rate, lambda app: None if of(app) is None else of(app).per_second, 6, 1, right=True),  # type: ignore[union-attr]
        Column("LAG", lag, lambda app: app.lag, 6, 1, right=True),
        Column("P50", latency("p50_ms"), figure("p50_ms"), 7, 3, right=True),
        Column("P99", latency("p99_ms"), figure("p99_ms"), 7, 0, right=True),
        Column("MAX", latency("max_ms"), figure("max_ms"), 7, 7, right=True),
        Column("MISSED", misses, figure("misses"), 6, 1, right=True),
        Column("LANES", lambda app: str(app.lanes), lambda app: app.lanes, 5, 9, right=True),
        Column("NODES", lambda app: str(app.nodes), lambda app: app.nodes, 5, 10, right=True),
        Column("DEAD", dead_letters, lambda app: app.dead_letters, 5, 6, right=True),
        Column("OUTCOMES", outcomes, figure("results"), 8, 4, flex=True),
    )
    return Pane(
        PaneName.APPS,
        f"apps over {span(window)}",
        columns,
        lambda snapshot: snapshot.apps,
        lambda app: app.app,
        Sorting(0, False),
        ("apps",),
        "no app is deployed; `rayline deploy app.yaml` deploys one",
    )


def dead_letters(app: AppRow) -> Text:
    """A count that is a lower bound says so."""
    style = "yellow" if app.dead_letters else ""
    return Text(f"{count(app.dead_letters)}{'' if app.dead_letters_exact else '+'}", style=style)


def cluster_pane() -> Pane:
    """Clusters: what is wanted, what is there."""

    def pods(row: ClusterRow) -> Text:
        short = row.desired_pods is not None and (row.running_pods or 0) < row.desired_pods
        return Text(f"{count(row.running_pods)}/{count(row.desired_pods)}", style="yellow" if short else "")

    def ready(row: ClusterRow) -> Text:
        there = sum(number for state, number in row.nodes.items() if state != Standing.GONE.value)
        able = row.nodes.get(Standing.READY.value, 0)
        return Text(f"{able}/{there}", style="yellow" if able < there else "")

    columns = (
        Column("CLUSTER", lambda row: Text(row.cluster, style="bold"), lambda row: natural(row.cluster), 14, 0),
        Column("STATE", lambda row: state_text(row.state), lambda row: row.state, 11, 1),
        Column("PODS", pods, lambda row: row.running_pods, 7, 2, right=True),
        Column("READY", ready, lambda row: row.nodes.get(Standing.READY.value, 0), 7, 2, right=True),
        Column("SHARE", lambda row: share(row.share), lambda row: row.share, 5, 3, right=True),
        Column("IN FLIGHT", lambda row: count(row.in_flight), lambda row: row.in_flight, 9, 6, right=True),
        Column("HEAD", lambda row: state_text(row.head or UNKNOWN), lambda row: row.head, 8, 7),
        Column("GEN", lambda row: count(row.generation), lambda row: row.generation, 3, 8, right=True),
        Column("REASON", lambda row: "; ".join(row.reasons), lambda row: "; ".join(row.reasons) or None, 10, 5, flex=True),
    )
    return Pane(
        PaneName.CLUSTERS,
        "clusters",
        columns,
        lambda snapshot: snapshot.clusters,
        lambda row: row.cluster,
        Sorting(0, False),
        ("clusters",),
        "no cluster is wanted, none reports; `rayline scale c1 --pods 2` asks for one",
    )


def node_pane(left_too: bool = False) -> Pane:
    """Nodes; with `left_too` those that are gone as well."""

    def cpu(row: NodeRow) -> Text:
        if row.cpu is None:
            return Text(f"{' ' * _CPU_BAR_CHARS} {UNKNOWN:>4}", style="dim")
        style = "red" if row.cpu > _HOT else "yellow" if row.cpu > _BUSY else "green"
        return Text.assemble((bar(row.cpu, _CPU_BAR_CHARS), style), f" {row.cpu:4.0%}")

    def beat(row: NodeRow) -> Text:
        late = row.beat_seconds_ago > 2 * row.interval_seconds and row.state != Standing.GONE.value
        return Text(f"{min(row.beat_seconds_ago, 999):.1f}s", style="yellow" if late else "")

    columns = (
        Column("NODE", lambda row: Text(row.key, style="bold"), lambda row: natural(row.key), 16, 0),
        Column("STATE", lambda row: state_text(row.state), lambda row: row.state, 8, 0),
        Column("WEIGHT", lambda row: weight(row.weight), lambda row: row.weight, 6, 2, right=True),
        Column("SHARE", lambda row: share(row.share), lambda row: row.share, 5, 5, right=True),
        Column("FLIGHT", lambda row: count(row.in_flight), lambda row: row.in_flight, 6, 2, right=True),
        Column("CPU", cpu, lambda row: row.cpu, _CPU_BAR_CHARS + 5, 1),
        Column("HOST", lambda row: share(row.host_cpu), lambda row: row.host_cpu, 5, 6, right=True),
        Column("MEM", lambda row: share(row.host_memory), lambda row: row.host_memory, 5, 8, right=True),
        Column("BEAT", beat, lambda row: row.beat_seconds_ago, 6, 3, right=True),
        Column("ACTORS", lambda row: count(row.actors), lambda row: row.actors, 6, 9, right=True),
        Column("CPUS", lambda row: count(row.cpus), lambda row: row.cpus, 4, 11, right=True),
        Column("AGE", lambda row: span(row.age_seconds), lambda row: row.age_seconds, 4, 7, right=True),
        Column("ZONE", lambda row: row.zone or "", lambda row: row.zone, 8, 10),
        Column("APPS", lambda row: ", ".join(row.apps), lambda row: ", ".join(row.apps) or None, 10, 12),
        Column("REASON", lambda row: row.reason or row.note or "", lambda row: row.reason, 10, 4, flex=True),
    )
    return Pane(
        PaneName.NODES,
        "nodes, also gone" if left_too else "nodes",
        columns,
        lambda snapshot: [row for row in snapshot.nodes if left_too or row.state != Standing.GONE.value],
        lambda row: row.key,
        Sorting(0, False),
        ("nodes",),
        "no node reports; `rayline up` starts a platform",
    )


def event_pane() -> Pane:
    """What happened, newest first."""

    def kind(row: EventRow) -> Text:
        bad = row.mark in ("lost", "silent", "gone", "notice") or row.kind in ("backing_off", "config.refused")
        return Text(row.kind, style="red" if bad else "green" if row.mark == "recovered" else "cyan")

    columns = (
        Column("TIME", lambda row: Text(clock(row.at_ms), style="dim"), lambda row: (row.at_ms, row.offset), 8, 0),
        Column("KIND", kind, lambda row: row.kind, 15, 1),
        Column("SUBJECT", lambda row: Text(row.subject, style="bold"), lambda row: row.subject, 16, 3),
        Column("FROM", lambda row: row.source, lambda row: row.source, 8, 4),
        Column("TEXT", lambda row: row.text, lambda row: row.text, 20, 2, flex=True),
    )
    return Pane(
        PaneName.EVENTS,
        "events",
        columns,
        lambda snapshot: snapshot.events,
        lambda row: f"{row.source}/{row.kind}/{row.subject}/{row.at_ms}/{row.offset}",
        Sorting(0, True),
        ("events",),
        "nothing happened within the last hour",
    )
