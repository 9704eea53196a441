"""`dlq list|show|replay`: the jobs that could not be accepted."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import DEFAULT_STATE_DIR, App, Bootstrap, KafkaConfig, Output, StateDir, kafka_settings
from deploy.cli.output import OutputFormat, Records, note, show

group = typer.Typer(
    help="Jobs that could not be accepted: list them, look at one, submit them again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Letter = Annotated[str, typer.Argument(metavar="LETTER", help="As `dlq list` names it: PARTITION-OFFSET.")]


@group.command("list")
def list_letters(
    app: App,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """List the dead letters of an app, oldest first."""
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    found = asyncio.run(_read(settings, app))
    with Records(output, _line) as records:
        for dead in found:
            records.add(dead.as_dict(whole=False))
    if not found:
        note(f"{app}.dlq is empty")


@group.command("show")
def show_letter(
    app: App,
    letter: Letter,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show one dead letter: reason, original headers and the beginning of its payload."""
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    dead = next((dead for dead in asyncio.run(_read(settings, app)) if dead.letter == letter), None)
    if dead is None:
        note(f"{app}.dlq has no letter {letter}; `rayline dlq list {app}` lists them")
        raise typer.Exit(ExitCode.NO)
    record = dead.as_dict(whole=True)
    headers = "".join(f"\n  {name}: {value}" for name, value in record["headers"].items()) or " none"
    text = (
        f"letter   {letter}\nreason   {record['reason']}\nsource   {record['source']}\ntime     {record['time']}\n"
        f"headers {headers}\npayload  {dead.preview()}"
    )
    show(output, record, text)


@group.command("replay")
def replay_letters(
    app: App,
    letters: Annotated[list[str] | None, typer.Argument(metavar="LETTER", help="Which; PARTITION-OFFSET.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the topic holds.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Submit dead letters again as new jobs (they stay in the topic)."""
    if bool(letters) == every:
        raise typer.BadParameter("name letters, or --all", param_hint="LETTER")
    from deploy.dead_letters import replay

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    replayed = asyncio.run(replay(settings, app, None if every else set(letters or ())))
    with Records(output, lambda record: f"{record['letter']} → job {record['job']}") as records:
        for letter, job in replayed:
            records.add({"letter": letter, "job": job})
    missing = set(letters or ()) - {letter for letter, _ in replayed}
    if missing:
        note(f"{app}.dlq has no letter {', '.join(sorted(missing))}; `rayline dlq list {app}` lists them")
        raise typer.Exit(ExitCode.NO)


async def _read(settings: Any, app: str) -> list[Any]:
    from deploy.dead_letters import read_dead_letters

    return [dead async for dead in read_dead_letters(settings, app)]


def _line(record: dict[str, Any]) -> str:
    when, reason = record["time"] or "", record["reason"] or ""
    return f"{record['letter']:<10} {when:<26} {reason:<24} {record['source']}  {record['bytes']} bytes"
