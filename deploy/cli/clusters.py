"""`clusters`, `scale`: which clusters there should be, and which there are."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, kafka_settings
from deploy.cli.output import OutputFormat, show


def clusters(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show each cluster: what is wanted, what there is, and why something waits."""
    from deploy.cluster_report import read_cluster_report

    report = asyncio.run(read_cluster_report(kafka_settings(bootstrap_servers, kafka_config, state_dir)))
    show(output, report.as_dict(), report.text())


def scale(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="A cluster's name; a new one is built.")],
    pods: Annotated[int, typer.Option(min=0, max=1024, help="Pods that it should have; 0 takes the cluster down.")],
    pod_cpus: Annotated[
        float | None, typer.Option(min=0.1, max=1024, help="CPUs of each pod that starts from now on; default: as before.")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Change how many pods a cluster should have; the keeper sees to it."""
    from deploy.cluster_report import scale_cluster

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    change = asyncio.run(scale_cluster(settings, cluster, pods=pods, cpus_per_pod=pod_cpus))
    show(output, change.as_dict(), change.text())
