"""`submit`, `results`, `explain job`: jobs in, results out, and where the time of one went."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import (
    DEFAULT_STATE_DIR,
    App,
    Bootstrap,
    JobSince,
    KafkaConfig,
    Output,
    StateDir,
    kafka_settings,
    seconds_of,
)
from deploy.cli.output import OutputFormat, Records, note, show
from rayline.errors import BusError, ConfigError

if TYPE_CHECKING:
    from deploy.printed_lines import JobLines
    from rayline.client import NewJob
    from rayline.results import Result

_SHOWN_CHARS: Final = 160
_CHUNK_BYTES: Final = 64 * 1024


def submit(
    app: App,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="JSON payloads, one on each line; - reads stdin.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", exists=True, file_okay=False, help="Submit the bytes of each file; its name is the job id."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json-payload", help="Send payloads as JSON instead of msgpack.")] = False,
    id_field: Annotated[str | None, typer.Option("--id-field", help="Field of the payload that becomes the job id.")] = None,
    max_in_flight: Annotated[int, typer.Option(min=1, max=100_000, help="Jobs sent but not yet acknowledged.")] = 1000,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Submit jobs and print how many; with `-o jsonl` the id and place of each."""
    if (file is None) == (folder is None):
        raise typer.BadParameter("name one source: a file, - for standard input, or --dir FOLDER", param_hint="FILE")
    from rayline.jobs import ContentType

    content_type = ContentType.JSON if as_json else ContentType.MSGPACK
    if folder is not None:
        if as_json:
            raise typer.BadParameter(
                "files are sent as bytes, which JSON does not have; leave it out", param_hint="--json-payload"
            )
        jobs: Iterator[NewJob] | AsyncIterator[NewJob] = _files(folder)
        total: int | None = sum(1 for path in folder.iterdir() if path.is_file())
    elif _arrives(file):
        jobs, total = _arriving(content_type, id_field), None
    else:
        jobs, total = _lines(file, content_type, id_field), _line_count(file)
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    done = _Done()
    try:
        seconds = asyncio.run(_submit(settings, app, jobs, total, max_in_flight, output, done))
    except KeyboardInterrupt:
        note(f"interrupted: {done.jobs} job{'s' * (done.jobs != 1)} submitted to {app}.requests, where they stay")
        raise
    count = done.jobs
    if output is not OutputFormat.JSONL:
        rate = count / seconds if seconds else 0.0
        show(
            output,
            {"app": app, "submitted": count, "seconds": round(seconds, 3)},
            f"{count} job{'s' * (count != 1)} submitted to {app}.requests in {seconds:.2f} s ({rate:,.0f}/s)",
        )


@dataclass(slots=True)
class _Done:
    """Jobs that the broker has, or results that were printed, so far."""

    jobs: int = 0


async def _submit(
    settings: Any,
    app: str,
    jobs: Iterator[NewJob] | AsyncIterator[NewJob],
    total: int | None,
    max_in_flight: int,
    output: OutputFormat,
    done: _Done,
) -> float:
    """The seconds that it took."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from rayline.client import Client, Submitted

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"submit to {app}", total=total)

        def submitted(job: Submitted) -> None:
            progress.advance(bar)
            done.jobs += 1
            if output is OutputFormat.JSONL:
                record = {"job_id": job.job_id, "topic": job.topic, "partition": job.partition, "offset": job.offset}
                sys.stdout.write(json.dumps(record) + "\n")

        async with Client(settings, linger_ms=5) as client:
            begun = time.monotonic()
            await client.submit_many(app, jobs, max_in_flight=max_in_flight, on_submitted=submitted)
            return time.monotonic() - begun


def results(
    app: App,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; without, end at the end of the topic.")
    ] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="With -f: begin with the oldest result, not with now.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many results.")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Print the results that the topic holds, or follow them (Ctrl-C ends). Text cuts long features, json does not."""
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    done = _Done()
    try:
        asyncio.run(_results(settings, app, follow, from_beginning or not follow, limit, output, done))
    except KeyboardInterrupt:
        note(f"interrupted after {done.jobs} result{'s' * (done.jobs != 1)}")
        raise


async def _results(
    settings: Any, app: str, follow: bool, from_beginning: bool, limit: int | None, output: OutputFormat, done: _Done
) -> None:
    from rayline.client import Client

    client = Client(settings)
    with Records(output, _result_line) as records:
        async with aclosing(client.results(app, from_beginning=from_beginning, follow=follow)) as stream:
            async for result in stream:
                records.add(result.as_dict())
                done.jobs += 1
                if done.jobs == limit:
                    return
    if done.jobs == 0:
        note(f"{app}.results holds no result; `rayline results {app} -f` waits for them")


def explain_job(
    app: App,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")],
    since: JobSince = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Tell the journey of a job: outcome, where it ran, where the time went, what it printed, its traceback."""
    from deploy.journey import find_results, journey_text, printed_text

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    found = asyncio.run(find_results(settings, app, job, since_seconds=None if since is None else seconds_of(since)))
    if not found:
        note(
            f"{app}.results holds no result of job {job}: "
            "it is still under way, was never submitted, or is past the topic's retention"
        )
        raise typer.Exit(ExitCode.NO)
    with Records(output, str) as records:
        for result in found:
            lines = asyncio.run(_printed(settings, result))
            if output is OutputFormat.TEXT:
                show(output, {}, f"{journey_text(result)}\n{printed_text(lines)}")
            else:
                printed = None if lines is None or lines.lost else [line.as_dict() for line in lines.lines]
                records.add({**result.as_dict(), "printed": printed})


async def _printed(settings: Any, result: Result) -> JobLines | None:
    """What a job printed; None where that cannot be read, which does not hold up the rest of its story."""
    from deploy.printed_lines import lines_of

    try:
        return await lines_of(settings, result)
    except (BusError, TimeoutError) as error:
        note(f"what it printed cannot be read: {str(error) or 'rayline.logs holds too much since then'}")
        return None


def _result_line(record: dict[str, Any]) -> str:
    timing = sum(record["timing_ms"].values())
    answer = (
        json.dumps(record["feature"], ensure_ascii=False, default=repr)
        if record["outcome"] == "ok"
        else f"{record['error_type'] or ''}: {record['error_message'] or ''}".strip(": ")
    )
    shown = answer if len(answer) <= _SHOWN_CHARS else f"{answer[:_SHOWN_CHARS]}…"
    return f"{record['job_id']}  {record['outcome']}  {timing:.0f} ms  {shown}"


def _lines(file: Path | None, content_type: Any, id_field: str | None) -> Iterator[NewJob]:
    name = "standard input" if str(file) == "-" else str(file)
    try:
        source = sys.stdin if str(file) == "-" else file.open(encoding="utf-8")  # type: ignore[union-attr]
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}; name a file with one JSON payload on each line") from error
    with source:
        try:
            for number, line in enumerate(source, start=1):
                if line.strip():
                    yield _job(line, f"{name}:{number}", content_type, id_field)
        except UnicodeDecodeError as error:
            raise _no_text(name, error) from error


def _arrives(file: Path | None) -> bool:
    """Whether lines come when somebody writes them: a pipe or a terminal as standard input."""
    if str(file) != "-":
        return False
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()


async def _arriving(content_type: Any, id_field: str | None) -> AsyncIterator[NewJob]:
    """Jobs as they are written to standard input. Ctrl-C ends it also before a line does."""
    number, rest, name = 0, b"", "standard input"
    while True:
        chunk = await _next_chunk(sys.stdin.fileno())
        *lines, rest = (rest + chunk).split(b"\n")
        if not chunk and rest:
            lines, rest = [*lines, rest], b""
        for line in lines:
            number += 1
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _no_text(name, error) from error
            if text.strip():
                yield _job(text, f"{name}:{number}", content_type, id_field)
        if not chunk:
            return


async def _next_chunk(descriptor: int) -> bytes:
    """What stands there, as soon as anything does; empty at the end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _CHUNK_BYTES)


def _job(line: str, where: str, content_type: Any, id_field: str | None) -> NewJob:
    from rayline.client import NewJob

    try:
        payload = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON ({error}); each line is one payload") from error
    job_id = None
    if id_field is not None:
        if not isinstance(payload, dict) or id_field not in payload:
            raise ConfigError(f"{where}: no field {id_field!r}, which --id-field names; add it, or leave the option out")
        job_id = str(payload[id_field])
    return NewJob(payload, job_id=job_id, content_type=content_type)


def _no_text(name: str, error: UnicodeDecodeError) -> ConfigError:
    return ConfigError(f"{name} is no text in UTF-8 ({error}); each line is one JSON payload, --dir sends files as bytes")


def _files(folder: Path) -> Iterator[NewJob]:
    from rayline.client import NewJob

    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield NewJob(path.read_bytes(), job_id=path.name)


def _line_count(file: Path | None) -> int | None:
    """For the progress bar; None where it is not known beforehand."""
    if file is None or not file.is_file():
        return None
    with file.open("rb") as source:
        return sum(1 for line in source if line.strip())
