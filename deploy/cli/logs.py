"""`logs`: what users' code printed, and its tracebacks."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import DEFAULT_STATE_DIR, App, Bootstrap, KafkaConfig, Output, StateDir, kafka_settings, seconds_of
from deploy.cli.output import OutputFormat, Records, note, show

if TYPE_CHECKING:
    from deploy.printed_lines import Wanted

_HOUR: Final = "1h"
_DAY_SECONDS: Final = 86_400.0


def logs(
    app: App,
    job: Annotated[
        str | None, typer.Option("--job", help="Only of this job (its id): its own lines, and those of its batch.")
    ] = None,
    node: Annotated[str | None, typer.Option("--node", metavar="CLUSTER/POD", help="Only of this node.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="How far to look back: 90s, 10m, 2h, 1d. Default: 1h; of a job, 1d."),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="At most so many of the last lines; 0: all.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes (Ctrl-C ends).")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Print what an app's code printed: | stdout, ! stderr and tracebacks, ~ what is missing. Times are UTC."""
    seconds = seconds_of(since) if since is not None else _DAY_SECONDS if job is not None else seconds_of(_HOUR)
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    if not asyncio.run(_logs(settings, app, job, node, seconds, lines, follow, output)):
        note(f"nothing that {app} printed within {seconds:g} s is in rayline.logs" + (f" for job {job}" if job else ""))
        raise typer.Exit(ExitCode.NO)


async def _logs(
    settings: Any, app: str, job: str | None, node: str | None, seconds: float, most: int, follow: bool, output: OutputFormat
) -> int:
    from deploy.printed_lines import read_lines

    wanted = await _wanted(settings, app, job, node)
    since_ms = round((time.time() - seconds) * 1000)
    count, past = 0, True
    with Records(output, str) as records:
        async with aclosing(read_lines(settings, wanted, since_ms=since_ms, follow=follow)) as stream:
            async for found in stream:
                shown = found[-most:] if past else found
                past = False
                for one in shown:
                    if output is OutputFormat.TEXT:
                        show(output, {}, one.text())
                    else:
                        records.add(one.as_dict())
                count += len(shown)
    return count


async def _wanted(settings: Any, app: str, job: str | None, node: str | None) -> Wanted:
    """Of a job that has its result already, the batch is known as well."""
    from deploy.journey import find_results
    from deploy.printed_lines import Wanted, wanted_for

    if job is None:
        return Wanted(app, node)
    results = [wanted_for(result, node=node) for result in await find_results(settings, app, job)]
    batches = frozenset(batch for wanted in results for batch in wanted.batches)
    return Wanted(app, node, results[0].job if results else job, batches)
