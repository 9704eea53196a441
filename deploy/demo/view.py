"""How the demo looks: a live view on a terminal, plain lines elsewhere, the table at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.demo.outcome import MAX_LATENCY_MS, MIN_ACCURACY, Outcome
from deploy.demo.tally import NodeTally, Tally, percentile
from rayline.reports import NodeState

PLAIN_EVERY_SECONDS: Final = 3.0
EVENTS_SHOWN: Final = 7
_BARS: Final = " ▁▂▃▄▅▆▇█"
_STATE_STYLES: Final = {
    NodeState.STARTING: "yellow",
    NodeState.READY: "green",
    NodeState.DRAINING: "bold magenta",
    NodeState.GONE: "red",
}


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as the platform's reports show it now."""

    name: str
    cluster: str
    state: NodeState


class View:
    """Shows one demo.

    Owns the terminal while it is open. Does not own the tally; it only reads it. Life: `with View(...)` -> `update`, `say`
    any number of times -> the end, which leaves the last picture standing.
    """

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console = console
        self._tally = tally
        self._live: Live | None = None
        self._printed_at = -PLAIN_EVERY_SECONDS
        self._events_printed = 0

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def update(self, now: float, nodes: Iterable[NodeStatus]) -> None:
        """Show what the tally says `now` (seconds since the beginning)."""
        if self._live is not None:
            self._live.update(render(self._tally, now, nodes), refresh=True)
            return
        for event in self._tally.events[self._events_printed :]:
            self._console.print(f"{event.at:6.1f} s  {event.text}", soft_wrap=True)
        self._events_printed = len(self._tally.events)
        if now - self._printed_at >= PLAIN_EVERY_SECONDS or self._tally.complete:
            self._printed_at = now
            self._console.print(f"{now:6.1f} s  {plain_line(self._tally, now)}", soft_wrap=True)


def plain_line(tally: Tally, now: float) -> str:
    """One line of progress."""
    recent = tally.recent_latencies_ms()
    latency = f", p50 {percentile(recent, 0.5) / 1000:.2f} s, slowest {max(recent) / 1000:.2f} s" if recent else ""
    return f"{len(tally.answers)}/{tally.planned} read, {tally.rate_per_second(now):.1f} a second{latency}"


def render(tally: Tally, now: float, nodes: Iterable[NodeStatus]) -> RenderableType:
    """The whole live view."""
    done = len(tally.answers)
    progress = Table.grid(padding=(0, 1), expand=True)
    progress.add_column(ratio=1)
    progress.add_column(justify="right", no_wrap=True)
    progress.add_row(
        ProgressBar(total=tally.planned, completed=done, complete_style="cyan", finished_style="green"),
        f"[bold]{done}[/] of {tally.planned} pictures read, {len(tally.sent_at)} sent · {now:.0f} s",
    )
    recent = tally.recent_latencies_ms()
    numbers = Text.assemble(
        (f"{tally.rate_per_second(now):.1f}", "bold"),
        " a second   latency p50 ",
        (f"{percentile(recent, 0.5) / 1000:.2f} s", "bold"),
        "  slowest ",
        (f"{max(recent, default=0) / 1000:.2f} s", "bold red" if max(recent, default=0) > MAX_LATENCY_MS else "bold"),
        "   ",
        (sparkline(recent), "cyan"),
        f"   longest waiting {tally.oldest_waiting_seconds(now):.1f} s",
    )
    return Panel(
        Group(progress, numbers, Text(""), _node_table(tally, now, nodes), Text(""), _events(tally), _last_read(tally)),
        title="[bold]Rayline[/]: pictures → Kafka → two Ray clusters → Kafka, exactly once",
        title_align="left",
        border_style="cyan",
    )


def sparkline(values: list[float]) -> str:
    """Bars relative to the highest value."""
    highest = max(values, default=0.0)
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] if highest else _BARS[0] for value in values)


def _node_table(tally: Tally, now: float, nodes: Iterable[NodeStatus]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading, justify in (
        ("pod", "left"),
        ("cluster", "left"),
        ("state", "left"),
        ("pictures", "right"),
        ("batches", "right"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("in the model", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for node in nodes:
        seen = tally.nodes.get(node.name, NodeTally(cluster=node.cluster))
        mean = f"{seen.execute_ms / seen.jobs:.0f} ms" if seen.jobs else ""
        busy = "●" if seen.jobs and now - seen.last_at < 1.0 else ""
        state = Text(node.state.name.lower(), style=_STATE_STYLES[node.state])
        table.add_row(node.name, node.cluster, state, str(seen.jobs), str(len(seen.batches)), mean, Text(busy, style="green"))
    return table


def _events(tally: Tally) -> Text:
    lines = [Text(f"{event.at:6.1f} s  {event.text}") for event in tally.events[-EVENTS_SHOWN:]]
    return Text("\n").join(lines)


def _last_read(tally: Tally) -> Text:
    if not tally.answers:
        return Text("")
    feature = list(tally.answers.values())[-1].result.feature() or {}
    return Text(
        f"\nlast read: {' / '.join(str(feature.get('text', '')).splitlines())}",
        style="italic dim",
        overflow="ellipsis",
        no_wrap=True,
    )


def outcome_table(outcome: Outcome) -> Table:
    """The numbers that count, with the bar each must reach."""
    table = Table(title="What came out", title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("must be", justify="right", style="dim", no_wrap=True)
    ms = outcome.max_ms
    rows = (
        ("jobs", str(outcome.jobs), "", True),
        (
            "outcomes",
            ", ".join(f"{name} {count}" for name, count in outcome.outcomes.items()),
            "ok",
            set(outcome.outcomes) <= {"ok"},
        ),
        ("lost", str(outcome.lost), "0", outcome.lost == 0),
        ("duplicated", str(outcome.duplicated), "0", outcome.duplicated == 0),
        ("latency p50", f"{outcome.p50_ms / 1000:.2f} s", "", True),
        ("latency p99", f"{outcome.p99_ms / 1000:.2f} s", "", True),
        ("latency max", f"{ms / 1000:.2f} s", f"≤ {MAX_LATENCY_MS / 1000:.0f} s", ms <= MAX_LATENCY_MS),
        ("character accuracy", f"{outcome.accuracy:.2%}", f"≥ {MIN_ACCURACY:.0%}", outcome.accuracy >= MIN_ACCURACY),
        ("pods evicted", str(outcome.evictions), "≥ 1", outcome.evictions >= 1),
        ("retries", str(outcome.retries), "", True),
        ("seconds", f"{outcome.seconds:.1f}", "", True),
    )
    for name, measured, bar, kept in rows:
        style = "" if not bar else "green" if kept else "bold red"
        table.add_row(name, Text(measured, style=style), bar)
    return table


def node_summary(nodes: Mapping[str, NodeTally], evicted: Iterable[str]) -> Table:
    """Batches and retries by node."""
    gone = set(evicted)
    table = Table(title="Where it was read", title_justify="left", title_style="bold")
    table.add_column("pod", no_wrap=True)
    table.add_column("cluster", no_wrap=True)
    for heading in ("pictures", "batches", "of them retried", "ms each"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, node in sorted(nodes.items()):
        label = Text(name) if name not in gone else Text.assemble(name, (" evicted", "magenta"))
        each = f"{node.execute_ms / node.jobs:.0f}" if node.jobs else ""
        table.add_row(label, node.cluster, str(node.jobs), str(len(node.batches)), str(node.retried_jobs), each)
    return table
