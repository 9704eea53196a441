"""`rayline config`: look at and change what the running platform is tuned to."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, kafka_settings
from deploy.cli.output import OutputFormat, Records, note, show, table

if TYPE_CHECKING:
    from deploy.config_flow import Care, ConfigFlow, Report
    from rayline.bus import KafkaSettings
    from rayline.config import Answer, Change

group = typer.Typer(help="See and change settings while everything runs.", no_args_is_help=True, rich_markup_mode=None)
Key = Annotated[
    str, typer.Argument(metavar="KEY", help="global/…, app/APP/…, cluster/CLUSTER/… or node/CLUSTER/POD/… + setting.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when every process concerned has answered; 3 unless all took it.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for the answers.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say who would change, from what to what; write nothing.")]
Canary = Annotated[
    bool, typer.Option("--canary", help="Try it on one process first; with --guard, go on to all when it is good.")
]
Only = Annotated[str | None, typer.Option("--only", metavar="PROCESS", help="The process for --canary, e.g. lane/ocr/0.")]
Guard = Annotated[
    float | None,
    typer.Option("--guard", min=2, metavar="SECONDS", help="Watch results so long; take the change back when they get worse."),
]
AuthorName = Annotated[str | None, typer.Option("--author", help="Who changes, for the log of changes; default: your login.")]


def check_only(only: str | None, *, canary: bool) -> None:
    """Raises BadParameter where a process is named for a canary that nobody asked for."""
    if only is not None and not canary:
        raise typer.BadParameter("it names the process for --canary", param_hint="--only")


@group.command("list")
def list_settings(output: Output = OutputFormat.TEXT) -> None:
    """Every setting: what it does, its default, bounds, and for whom it can be set."""
    from rayline.config import SETTINGS
    from rayline.config.declared import describe

    rows = [describe(setting) for setting in SETTINGS.values()]
    text = table(
        ("SETTING", "DEFAULT", "RIGHT", "SCOPES", "MEANING"),
        [(row["name"], row["default"], row["right"], " ".join(row["scopes"]), row["description"]) for row in rows],
    )
    show(output, {"settings": rows}, text)


@group.command("schema")
def schema(output: Output = OutputFormat.JSON) -> None:
    """Print the JSON Schema of all settings."""
    from rayline.config.declared import schema as settings_schema

    show(output, settings_schema())


@group.command("get")
def get(
    key: Key,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """What is set under a key, and what each process concerned has in force."""
    from deploy.config_board import ConfigBoard, value_text
    from deploy.config_change import read_request

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    asked = read_request(key, None).key

    async def read() -> dict[str, Any]:
        async with ConfigBoard(settings) as board:
            written = board.current(asked)
            rows = [{"process": now.process, "value": now.value, "source": now.source} for now in board.in_force(asked)]
            return {"key": key, "set": written.as_dict() if written is not None else None, "in_force": rows}

    found = asyncio.run(read())
    head = f"{key} is not set" if found["set"] is None else f"{key} = {found['set']['value']} (version {found['set']['version']})"
    lines = [f"  {row['process']}: {value_text(row['value'])} from {row['source']}" for row in found["in_force"]]
    show(output, found, "\n".join([head, *lines]))


@group.command("set")
def set_value(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON, or a bare word.")],
    wait: Wait = False,
    timeout: Timeout = 10,
    dry_run: DryRun = False,
    canary: Canary = False,
    only: Only = None,
    guard: Guard = None,
    guard_margin: Annotated[
        float, typer.Option("--margin", min=0, help="--guard: p99 may become so much longer (0.25: a quarter, and 100 ms).")
    ] = 0.25,
    author: AuthorName = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Change a setting; the exit code tells what came of it with --wait, --canary or --guard."""
    from deploy.config_change import read_request
    from deploy.config_flow import Care
    from deploy.config_guard import Margin

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    change = read_request(key, value)
    check_only(only, canary=canary)
    if dry_run:
        _show_preview(settings, change, output)
        return
    care = Care(canary, only, guard, Margin(p99_factor=1 + guard_margin))
    wait = wait or canary or guard is not None
    raise typer.Exit(_make(settings, change, care=care, author=author, timeout=timeout, wait=wait, output=output))


@group.command("unset")
def unset(
    key: Key,
    wait: Wait = False,
    timeout: Timeout = 10,
    dry_run: DryRun = False,
    author: AuthorName = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Delete a key: what is less specific counts again, at last the manifest's value or the default."""
    from deploy.config_change import read_request

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    change = read_request(key, None)
    if dry_run:
        _show_preview(settings, change, output)
        return
    raise typer.Exit(_make(settings, change, author=author, timeout=timeout, wait=wait, output=output))


@group.command("rollback")
def rollback(
    key: Key,
    to: Annotated[
        int | None, typer.Option("--to", metavar="VERSION", help="The version to go back to; default: the last.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 10,
    author: AuthorName = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Set a key back to what it was before its last change (or at a version)."""
    from deploy.config_board import ConfigBoard
    from deploy.config_change import read_request
    from deploy.config_history import before, read_history
    from rayline.config import SETTINGS
    from rayline.config.record import read_change, setting_of

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    asked = read_request(key, None).key

    async def earlier() -> Change | None:
        async with ConfigBoard(settings) as board:
            entries = await read_history(settings, board)
            usable = [entry for entry in entries if entry.key == key and entry.refusal is None]
            if to is not None:
                found = next((entry for entry in usable if entry.version == to), None)
                if found is None:
                    return None
            elif not usable:
                return None
            else:
                found = before(usable, key, usable[-1].version)
            raw = found.value.encode() if found is not None and found.value is not None else None
            return read_change(asked, setting_of(asked, SETTINGS), raw)

    change = asyncio.run(earlier())
    if change is None:
        note(f"the log of changes knows no {f'version {to}' if to is not None else 'change'} of {key}")
        raise typer.Exit(ExitCode.NO)
    raise typer.Exit(_make(settings, change, author=author, timeout=timeout, wait=wait, output=output, why="rollback"))


@group.command("apply")
def apply(
    name: Annotated[
        str, typer.Argument(metavar="SET", help="A shipped set (as-in-the-article), or a YAML file of keys and values.")
    ],
    unset: Annotated[bool, typer.Option("--unset", help="Delete the keys of the set instead.")] = False,
    wait: Wait = False,
    timeout: Timeout = 10,
    author: AuthorName = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Set all keys of a set, one after the other; a set with one wrong value changes nothing."""
    from deploy.config_set import read_set
    from rayline.config.record import Change

    flow = _flow(kafka_settings(bootstrap_servers, kafka_config, state_dir), author=author, timeout=timeout, wait=wait)
    changes = [Change(change.key) if unset else change for change in read_set(name)]

    async def make() -> list[Report]:
        return [await flow.run(change, why=f"unset {name}" if unset else f"set {name}") for change in changes]

    reports = asyncio.run(make())
    lines = [_outcome_text(report, wait=wait) for report in reports]
    show(output, {"set": name, "changes": [report.as_dict() for report in reports]}, "\n".join(lines))
    raise typer.Exit(ExitCode.OK if not wait or all(report.good for report in reports) else ExitCode.NO)


@group.command("diff")
def diff(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """What differs from the defaults: keys that are set, and what each process has in force."""
    from deploy.config_board import ConfigBoard, value_text
    from rayline.config import SETTINGS

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)

    async def read() -> dict[str, Any]:
        async with ConfigBoard(settings) as board:
            rows = [
                {"process": process, "setting": name, "default": SETTINGS[name].default, "value": value, "source": source}
                for process, presence in board.presences().items()
                for name, (value, source) in sorted(presence.values.items())
                if name in SETTINGS and value != SETTINGS[name].default
            ]
            troubled = {process: one.problem for process, one in board.presences().items() if one.problem is not None}
            return {"set": [written.as_dict() for written in board.set_keys()], "differs": rows, "cannot_read": troubled}

    found = asyncio.run(read())
    parts = []
    if found["set"]:
        rows = [(w["key"], w["value"], w["version"], w["author"] or "another client") for w in found["set"]]
        parts.append(table(("KEY", "VALUE", "VERSION", "AUTHOR"), rows))
    if found["differs"]:
        lines = [
            (d["process"], d["setting"], value_text(d["default"]), value_text(d["value"]), d["source"]) for d in found["differs"]
        ]
        parts.append(table(("PROCESS", "SETTING", "DEFAULT", "IN FORCE", "FROM"), lines))
    parts += [f"{process} cannot read the config topic: {problem}" for process, problem in found["cannot_read"].items()]
    show(output, found, "\n\n".join(parts) or "nothing is set, every process runs with its defaults")


@group.command("watch")
def watch(
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, help="End after so long; default: with Ctrl-C.")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Print changes and answers as they come."""
    from deploy.config_board import ConfigBoard, value_text

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)

    def line(record: dict[str, Any]) -> str:
        if "verdict" in record:
            why = f" ({record['reason']})" if record["reason"] else ""
            return f"{record['version']:>8}  {record['process']}: {record['verdict']}, {value_text(record['effective'])}{why}"
        value = "(deleted)" if record["value"] is None else record["value"]
        return f"{record['version']:>8}  {record['key']} = {value} by {record['author'] or 'another client'}"

    async def follow(records: Records) -> None:
        async with ConfigBoard(settings) as board:
            board.on_record = lambda written: records.add({"kind": "change", **written.as_dict()})
            board.on_answer = lambda answer: records.add(_answer_row(answer))
            await board.wait_until(lambda: False, seconds if seconds is not None else float("inf"))

    with Records(output, line) as records:
        asyncio.run(follow(records))


@group.command("history")
def history(
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Only this key.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="The last so many.")] = 50,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Who changed what, when, and what came of it; oldest first."""
    from deploy.config_board import ConfigBoard
    from deploy.config_history import FOREIGN, read_history

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)

    async def read() -> list[dict[str, Any]]:
        async with ConfigBoard(settings) as board:
            entries = await read_history(settings, board)
        return [entry.as_dict() for entry in entries if key is None or entry.key == key][-limit:]

    def line(entry: dict[str, Any]) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at_ms"] / 1000))
        by = ", ".join(known for known in (entry["client_id"], entry["principal"]) if known)
        who = FOREIGN if entry["author"] is None else "@".join(filter(None, (entry["author"], entry["host"])))
        who += f" ({by})" if by else ""
        value = "(deleted)" if entry["value"] is None else entry["value"]
        came = "refused: " + entry["refusal"] if entry["refusal"] else ", ".join(one["outcome"] for one in entry["outcomes"])
        return f"{entry['version']:>8}  {at}  {entry['key']} = {value}  {who}  {entry['why'] or ''}  {came}".rstrip()

    with Records(output, line) as records:
        for entry in asyncio.run(read()):
            records.add(entry)


def _make(
    settings: KafkaSettings,
    change: Change,
    *,
    author: str | None,
    timeout: float,
    wait: bool,
    output: OutputFormat,
    care: Care | None = None,
    why: str = "set",
) -> int:
    """The exit code. SIGTERM is taken as Ctrl-C: what is guarded is taken back."""
    from deploy.interruption import Interruption

    flow = _flow(settings, author=author, timeout=timeout, wait=wait)

    async def make(_: Interruption) -> int:
        report = await flow.run(change, care=care, why=why)
        if report.tried is not None and report.judgement is None and not report.rolled_back:
            back = f"rayline config rollback {change.key}"
            note(f"only {report.tried} has it; for all: rayline config set {change.key} …; back: {back}")
        parts = [_outcome_text(report, wait=wait)]
        parts += [report.judgement.text()] if report.judgement is not None else []
        show(output, report.as_dict(), "\n".join(parts))
        return ExitCode.OK if not wait or report.good else ExitCode.NO

    return Interruption().run(make)


def _flow(settings: KafkaSettings, *, author: str | None, timeout: float, wait: bool) -> ConfigFlow:
    from deploy.config_change import Author
    from deploy.config_flow import ConfigFlow

    by = Author.here(settings, author)
    return ConfigFlow(settings=settings, author=by, timeout_seconds=timeout, say=note, wait=wait)


def _outcome_text(report: Report, *, wait: bool) -> str:
    outcome = report.outcome
    return outcome.text() if wait else f"{outcome.key}, version {outcome.version}, is written"


def _show_preview(settings: KafkaSettings, change: Change, output: OutputFormat) -> None:
    from deploy.config_board import ConfigBoard, value_text
    from deploy.config_change import preview

    async def read() -> list[dict[str, Any]]:
        from dataclasses import asdict

        async with ConfigBoard(settings) as board:
            return [asdict(effect) for effect in preview(board, change)]

    effects = asyncio.run(read())
    rows = [(e["process"], value_text(e["before"]), value_text(e["after"]), e["verdict"], e["reason"] or "") for e in effects]
    text = table(("PROCESS", "NOW", "THEN", "WOULD BE", "WHY"), rows) if rows else "no process that lives is concerned"
    show(output, {"key": str(change.key), "dry_run": True, "effects": effects}, text)


def _answer_row(answer: Answer) -> dict[str, Any]:
    return {
        "kind": "answer",
        "key": answer.key,
        "version": answer.version,
        "process": answer.process,
        "verdict": answer.verdict.value,
        "effective": answer.effective,
        "reason": answer.reason,
    }
