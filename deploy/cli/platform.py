"""`up`, `down`, `status`, `evict`: the local platform."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from deploy.cli.console import installed
from deploy.cli.exit_codes import ExitCode
from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, explicit_kafka_settings
from deploy.cli.output import OutputFormat, note, show


def up(
    clusters: Annotated[int, typer.Option(min=1, max=16, help="Ray clusters.")] = 2,
    pods: Annotated[int, typer.Option(min=1, max=64, help="Pods in each cluster.")] = 2,
    pod_cpus: Annotated[float, typer.Option(min=0.1, max=1024, help="CPUs of each pod, as Ray counts them.")] = 1,
    lanes: Annotated[int, typer.Option(min=1, max=64, help="Lanes of each app.")] = 1,
    keepers: Annotated[int, typer.Option(min=1, max=8, help="Keepers: one leads, the others stand by.")] = 1,
    console: Annotated[bool, typer.Option(help="The web page for operators, where NiceGUI is installed.")] = True,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready; stop it with `rayline down`.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
) -> None:
    """Start the platform here: a Kafka broker (or yours), Ray clusters of preemptible pods, lanes for every deployed app."""
    from deploy.local.launcher import PlatformPlan, run_detached, run_in_foreground

    plan = PlatformPlan(
        state_dir=state_dir,
        clusters=clusters,
        pods_per_cluster=pods,
        cpus_per_pod=pod_cpus,
        lanes_per_app=lanes,
        keepers=keepers,
        kafka=explicit_kafka_settings(bootstrap_servers, kafka_config),
        console=console and installed(),
    )
    if detach:
        run_detached(plan)
    elif not asyncio.run(run_in_foreground(plan)):
        raise typer.Exit(ExitCode.INTERRUPTED)


def down(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds the launcher gets for an orderly end.")] = 60,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Stop the platform, also one whose launcher was killed; the broker's data and the logs stay."""
    from deploy.local.teardown import take_down

    outcome = take_down(state_dir, timeout_seconds=timeout)
    show(output, outcome.as_dict(), outcome.text())


def status(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show the processes, the nodes as they report themselves, and the apps."""
    from deploy.status import read_status

    report = asyncio.run(read_status(state_dir, explicit_kafka_settings(bootstrap_servers, kafka_config)))
    show(output, report.as_dict(), report.text())
    if not report.running:
        raise typer.Exit(ExitCode.NO)


def evict(
    pod: Annotated[str, typer.Argument(metavar="POD", help="Name of a pod, as `rayline status` shows it.")],
    grace: Annotated[
        float, typer.Option(min=0, max=600, help="Seconds between the notice (SIGTERM) and the end (SIGKILL).")
    ] = 10,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Take a pod away as a cloud takes back preemptible capacity: notice, grace period, end."""
    from deploy.local.eviction import evict_pod

    def noticed() -> None:
        note(f"{pod}: notice given, {grace:g} s of grace")

    ended_after = evict_pod(state_dir, pod, grace_seconds=grace, on_notice=noticed)
    show(output, {"pod": pod, "gone_after_seconds": round(ended_after, 3)}, f"{pod} is gone after {ended_after:.1f} s")
