"""The `rayline` command. Groups live in one small module each; what is heavy is imported inside the command that needs it."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

import typer

from deploy.cli import (
    apps,
    clusters,
    config,
    console,
    dlq,
    doctor,
    drain,
    env,
    jobs,
    logs,
    model,
    nodes,
    peers,
    platform,
    processes,
    programs,
    simulate,
    top,
)
from deploy.cli.exit_codes import ExitCode, explain_failure
from rayline.logs import LEVEL_VARIABLE, open_logs

app = typer.Typer(
    name="rayline",
    help="Near-line feature generation: Kafka jobs in, Ray on preemptible pods, results out exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

app.command("init")(apps.init)
app.command("up")(platform.up)
app.command("status")(platform.status)
app.command("top")(top.top)
app.command("clusters")(clusters.clusters)
app.command("scale")(clusters.scale)
app.command("deploy")(apps.deploy)
app.command("undeploy")(apps.undeploy)
app.command("submit")(jobs.submit)
app.command("results")(jobs.results)
app.command("logs")(logs.logs)
app.command("nodes")(nodes.nodes)
app.add_typer(nodes.group, name="explain")
app.add_typer(dlq.group, name="dlq")
app.command("evict")(platform.evict)
app.command("console")(console.console)
app.command("drain")(drain.drain)
app.command("cordon")(drain.cordon)
app.command("uncordon")(drain.uncordon)
app.command("down")(platform.down)
app.command("doctor")(doctor.doctor)
app.add_typer(apps.group, name="app")
app.add_typer(config.group, name="config")
env.group.command("peers")(peers.peers)
app.add_typer(env.group, name="env")
app.add_typer(model.group, name="model")
_PROGRAM = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("demo", context_settings=_PROGRAM)(programs.demo)
app.command("bench", context_settings=_PROGRAM)(programs.bench)
app.command("chaos", context_settings=_PROGRAM)(programs.chaos)
app.command("simulate")(simulate.simulate)
app.command("lane", hidden=True)(processes.lane)
app.command("gateway", hidden=True)(processes.gateway)
app.command("agent", hidden=True)(processes.agent)
app.command("keeper", hidden=True)(processes.keeper)
app.command("resource", hidden=True)(processes.resource)


def main() -> NoReturn:
    """Run the command line; every way out is an `ExitCode`."""
    try:
        _log_to_stderr()
        app(prog_name="rayline")
    except BrokenPipeError:
        # The reader of our output has left (`| head`): what Python would still flush has nowhere to go.
        sys.stdout = None
        sys.exit(ExitCode.BROKEN_PIPE)
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        sys.exit(explain_failure(error))
    sys.exit(ExitCode.OK)


def _log_to_stderr() -> None:
    open_logs(os.environ)
    if not os.environ.get(LEVEL_VARIABLE):
        # While a broker restarts it writes a line for each attempt; what matters of it reaches people as our own errors.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
