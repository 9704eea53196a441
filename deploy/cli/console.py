"""`console`: the web page for operators."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, StateDir, kafka_settings
from deploy.cli.output import note
from deploy.process_environment import CONSOLE_TOKEN_VARIABLE
from rayline.errors import ConfigError

DEFAULT_PORT = 8440


def console(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; others than this machine need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = DEFAULT_PORT,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="Another name that browsers may ask for; repeatable.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            exists=True,
            dir_okay=False,
            help=f"File with the token that allows changes; or {CONSOLE_TOKEN_VARIABLE}. Without one it is read-only.",
        ),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
) -> None:
    """Serve the web page for operators until Ctrl-C: everything at a glance, and, with a token, changes."""
    if not installed():
        raise ConfigError(
            "the console needs NiceGUI, which is not installed: run `pip install 'rayline[console]'` or `make setup`"
        )
    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    token = token_file.read_text(encoding="utf-8").strip() if token_file is not None else os.environ.get(CONSOLE_TOKEN_VARIABLE)
    from deploy.console.process import Place, run

    place = Place(host=host, port=port, names=tuple(allow_host or ()), token=token or None)
    try:
        asyncio.run(run(settings, place, on_ready=lambda address: note(f"console: {address}")))
    except KeyboardInterrupt:
        note("console: ended")


def installed() -> bool:
    """Whether the library that the console is made with is there."""
    return importlib.util.find_spec("nicegui") is not None
