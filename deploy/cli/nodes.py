"""`nodes`, and `explain`: how nodes stand and why, why a job ran where it ran, and where its time went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from deploy.cli.exit_codes import ExitCode
from deploy.cli.jobs import explain_job
from deploy.cli.options import (
    DEFAULT_STATE_DIR,
    Bootstrap,
    JobSince,
    KafkaConfig,
    Output,
    StateDir,
    kafka_settings,
    seconds_of,
)
from deploy.cli.output import OutputFormat, Records, note, show, table

if TYPE_CHECKING:
    from deploy.node_inspection import NodeEntry, NodeInspection, NodeInspector
    from rayline.bus import KafkaSettings
    from rayline.results import Result

Group = Annotated[str, typer.Option("--group", help="Group of resources whose nodes are shown.")]
_HEADER: Final = ("CLUSTER", "NODE", "ZONE", "STATE", "AGE", "BEAT", "CPUS", "LOAD", "IN FLIGHT", "WEIGHT", "REASON")
_LOOK_SECONDS: Final = 1.0
_REASON_CHARS: Final = 60
_EVENT_OF: Final = {"draining": "node.notice", "gone": "node.gone", "silent": "node.suspect"}
_WAYS: Final = {"news": "by the news", "actor": "its actor turned a batch away", "silence": "by its silence"}


class JobByDefault(TyperGroup):
    """`rayline explain APP JOB` is short for `rayline explain job APP JOB`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["job", *args]
        return super().resolve_command(ctx, args)


group = typer.Typer(
    cls=JobByDefault,
    help="Why things are as they are: a job's journey (`explain APP JOB`), a node's state and weight, a pick.",
    no_args_is_help=True,
)
group.command("job")(explain_job)


def nodes(
    all_nodes: Annotated[bool, typer.Option("--all", "-a", help="Also those that left within the last minutes.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with a line for each change (Ctrl-C ends).")] = False,
    group: Group = "default",
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """List the nodes: state, load, weight, and why."""
    asyncio.run(_nodes(kafka_settings(bootstrap_servers, kafka_config, state_dir), group, all_nodes, watch, output))


async def _nodes(settings: Any, group_name: str, all_nodes: bool, watch: bool, output: OutputFormat) -> None:
    from deploy.node_inspection import open_inspector

    async with open_inspector(settings, group=group_name) as inspector:
        known = inspector.nodes()
        found = [node for node in known if all_nodes or not node.left]
        _note_ears(inspector)
        if output is OutputFormat.TEXT and found:
            show(output, {}, table(_HEADER, [_row(node) for node in found]))
        elif output is OutputFormat.TEXT:
            note("no node reports; `rayline up` starts a platform")
        if not watch:
            if output is not OutputFormat.TEXT:
                with Records(output, str) as records:
                    for node in found:
                        records.add(node.as_dict())
            return
        with Records(output, str) as records:
            if output is not OutputFormat.TEXT:
                for node in found:
                    records.add(node.as_dict())
            await _follow(inspector, known, records, output)


async def _follow(inspector: NodeInspector, found: list[NodeInspection], records: Records, output: OutputFormat) -> None:
    """A line for each node whose state or reason is another than before."""
    shown = {node.node.key: _face(node) for node in found}
    widths = [max(len(cell) for cell in column) for column in zip(_HEADER, *map(_row, found), strict=True)]
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        await inspector.read_lanes()
        for node in inspector.nodes():
            if shown.get(node.node.key) == _face(node):
                continue
            shown[node.node.key] = _face(node)
            if output is OutputFormat.TEXT:
                cells = (cell.ljust(width) for cell, width in zip(_row(node), widths, strict=True))
                show(output, {}, "  ".join(cells).rstrip())
            else:
                records.add(node.as_dict())


@group.command("node")
def explain_node(
    name: Annotated[str, typer.Argument(metavar="NODE", help="A node, as `rayline nodes` shows it; or CLUSTER/NODE.")],
    resources: Group = "default",
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Tell a node's state and why, its weight and the factors of it, what happened to it within the last day, and how the news of
    its end went from hop to hop."""
    asyncio.run(_explain_node(kafka_settings(bootstrap_servers, kafka_config, state_dir), resources, name, output))


async def _explain_node(settings: Any, group_name: str, name: str, output: OutputFormat) -> None:
    from deploy.node_inspection import open_inspector

    async with open_inspector(settings, group=group_name) as inspector:
        found = inspector.find(name)
        _note_ears(inspector)
        if len(found) > 1:
            raise typer.BadParameter(
                f"several clusters have one: {', '.join(node.node.key for node in found)}", param_hint="NODE"
            )
        key = found[0].node.key if found else name
        history, left = await inspector.history(key), inspector.left(key)
        if not found and not history:
            note(f"no node {name} reports, and nothing is known of one; `rayline nodes` lists those that do")
            raise typer.Exit(ExitCode.NO)
        told = {"left": {lane: dict(way) for lane, way in left.items()}, "history": [entry.as_dict() for entry in history]}
        record = {**(found[0].as_dict() if found else {"node": key, "state": None}), **told}
        show(output, record, "\n".join([_node_text(key, found[0] if found else None, history), *_left_lines(left, history)]))


@group.command("pick")
def explain_pick(
    words: Annotated[
        list[str], typer.Argument(metavar="[APP] JOB", help="A job's id; without APP it is looked for in all apps.")
    ],
    since: JobSince = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Tell why a job was sent to the node where it ran, as it stood at that moment."""
    from deploy.journey import pick_text

    if len(words) > 2:
        raise typer.BadParameter(f"{len(words)} words: right would be JOB, or APP JOB", param_hint="[APP] JOB")
    since_seconds = None if since is None else seconds_of(since)
    found = asyncio.run(_results_of(words, kafka_settings(bootstrap_servers, kafka_config, state_dir), since_seconds))
    if not found:
        where = f"{words[0]}.results holds" if len(words) == 2 else "the results of all apps hold"
        note(f"{where} no result of job {words[-1]}: its pick is told with its result")
        raise typer.Exit(ExitCode.NO)
    with Records(output, str) as records:
        for app, result in found:
            if output is OutputFormat.TEXT:
                show(output, {}, pick_text(result))
            else:
                place = {"cluster": result.cluster, "node": result.node, "attempts": result.attempts, "batch": result.batch}
                records.add({"app": app, "job_id": result.job_id, "source": result.source, **place, "pick": result.pick})


async def _results_of(words: list[str], settings: KafkaSettings, since_seconds: float | None) -> list[tuple[str, Result]]:
    """Results of `[APP] JOB`, each with its app."""
    from deploy.app_registry import AppRegistry
    from deploy.journey import find_results

    if len(words) == 2:
        apps = [words[0]]
    else:
        async with AppRegistry(settings) as registry:
            apps = sorted(await registry.snapshot())
    return [(app, result) for app in apps for result in await find_results(settings, app, words[-1], since_seconds=since_seconds)]


def _note_ears(inspector: NodeInspector) -> None:
    if inspector.nodes() and inspector.view.stale(time.monotonic()):
        note("nobody is heard at this moment: this is the last that was known")
    for lane in inspector.stale_lanes:
        note(f"lane {lane} hears no resource and runs on the last view that it had")


def _face(node: NodeInspection) -> tuple[int, str, str]:
    return (node.node.report.incarnation, str(node.standing), "" if node.why.startswith("no beat") else node.why)


def _row(node: NodeInspection) -> tuple[str, ...]:
    data = node.as_dict()
    reason = data["reason"] or ""
    return (
        data["cluster"],
        data["node"],
        data["zone"] or "",
        data["state"],
        _span(data["age_seconds"]),
        f"{data['beat_seconds_ago']:.1f}s ago",
        _figure(data["cpus"]),
        _load(data["load"]),
        _figure(data["in_flight"] if data["in_flight"] is not None else data["jobs_in_flight"]),
        _figure(data["weight"]),
        reason if len(reason) <= _REASON_CHARS else f"{reason[: _REASON_CHARS - 1]}…",
    )


def _node_text(key: str, node: NodeInspection | None, history: list[NodeEntry]) -> str:
    lines = [f"node {key}: {'not heard of lately' if node is None else node.standing}"]
    if node is not None:
        data = node.as_dict()
        lines[0] += f" ({node.why})" if node.why else ""
        lines += [
            f"  up for      {_span(data['age_seconds'])}, incarnation {data['incarnation']}",
            f"  last beat   {data['beat_seconds_ago']:.1f} s ago" + ("" if data["beats"] else " (its gateway's: it sends none)"),
            f"  has         {_figure(data['cpus'])} CPUs, {data['actors']} actors, zone {data['zone'] or '–'}",
        ]
        if data["load"] is not None:
            known = ", ".join(f"{name} {_figure(value)}" for name, value in data["load"].items() if value is not None)
            lines.append(f"  load        {known or 'unknown'}")
        for name, lane in node.lanes.items():
            lines += _lane_lines(name, lane)
        if not node.lanes:
            lines.append("  weight      none: no lane sends to it")
    lines.append("  history     " + ("nothing within the last day" if not history else ""))
    lines += [
        f"    {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry.at_ms / 1000))}  {entry.event.kind:<16}"
        f"{entry.event.reason or entry.event.text}"
        for entry in history
    ]
    return "\n".join(line.rstrip() for line in lines)


def _left_lines(left: Mapping[str, Mapping[str, Any]], history: list[NodeEntry]) -> list[str]:
    """Each hop from the node's word (or its last beat) to the last lane that stopped sending there."""
    said = next((way for way in left.values() if way.get("said_ms") is not None), None)
    if said is None:
        return [f"  left        lane {lane}: {_way_text(way)}" for lane, way in left.items()]
    state, said_ms = said["state"], said["said_ms"]
    what = "last heard" if state == "silent" else f"{state}, said"
    seconds, kind = time.strftime("%H:%M:%S", time.localtime(said_ms / 1000)), _EVENT_OF.get(state)
    lines = [f"  left        {what} at {seconds}.{said_ms % 1000:03d} by its own clock"]
    told = [entry.at_ms for entry in history if entry.event.kind == kind]
    if told:
        lines.append(f"    resources told of it {told[-1] - said_ms:.0f} ms later, by the broker's clock")
    return lines + [f"    lane {lane}: {_way_text(way)}" for lane, way in sorted(left.items())]


def _way_text(way: Mapping[str, Any]) -> str:
    heard = "" if way.get("heard_after_ms") is None else f"heard of it {way['heard_after_ms']:.0f} ms after the broker, "
    out = "" if way.get("out_after_ms") is None else f" after {way['out_after_ms']:.0f} ms"
    by = _WAYS.get(str(way.get("by")), "not known")
    return f"{heard}sent nothing new there{out} ({by}; update {way.get('update')} of its weights)"


def _lane_lines(name: str, lane: Any) -> list[str]:
    share = lane.get("share")
    head = f"  weight      {_figure(lane.get('weight'))}" + (f", {share:.1%} of the work" if share is not None else "")
    factors = " · ".join(f"{factor} {_figure(value)}" for factor, value in (lane.get("factors") or {}).items())
    version = f", version {lane['version']}" if lane.get("version") else ""
    lines = [f"{head} (lane {name}{version}, policy {lane.get('policy')}, in flight {lane.get('running')})"]
    if factors:
        lines.append(f"    factors   {factors}")
    if lane.get("note"):
        lines.append(f"    note      {lane['note']}")
    return lines


def _load(load: Any) -> str:
    """The node's own share of its cores, and in brackets everybody's of the machine."""
    if load is None:
        return "–"
    own = None if load["own_cpu"] is None or not load["cores"] else load["own_cpu"] / load["cores"]
    parts = "–" if own is None else f"{own:.0%}"
    return parts if load["host_cpu"] is None else f"{parts} ({load['host_cpu']:.0%})"


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
