"""`demo`, `bench`, `chaos`: programs of their own, imported when they are called."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the outcome as JSON to FILE, too.")]


def demo(context: typer.Context, json_file: JsonFile = None) -> None:
    """Read pictures of text on a local platform, with an eviction in the middle, and count every result.

    `rayline demo -- --help` tells its own options.
    """
    _run("deploy.demo", json_file, context.args)


def bench(context: typer.Context, json_file: JsonFile = None) -> None:
    """Measure throughput, latency and cost beside references in the same run.

    `rayline bench -- --help` tells its own options.
    """
    _run("bench.run", json_file, context.args, function="main")


def chaos(context: typer.Context, json_file: JsonFile = None) -> None:
    """Kill, stop and restart parts under load; count what was lost or repeated.

    `rayline chaos -- --help` tells its own options.
    """
    _run("deploy.chaos.command", json_file, context.args)


def _run(module: str, json_file: Path | None, arguments: list[str], function: str = "run") -> None:
    """Call `module.function(json_path=…, arguments=[…]) -> exit code`."""
    code = getattr(import_module(module), function)(json_path=json_file, arguments=arguments)
    raise typer.Exit(int(code or 0))
