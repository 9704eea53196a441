"""The platform's own processes (hidden): Kafka's address and the channel's token come by environment."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

Cluster = Annotated[str, typer.Option("--cluster")]
Address = Annotated[str, typer.Option("--address", help="HOST:PORT of the cluster's head.")]


def lane(app: Annotated[str, typer.Option("--app")], instance: Annotated[str, typer.Option("--instance")]) -> None:
    """Read jobs, batch, dispatch, publish: one member of the app's consumer group."""
    from ingest.lane_process import run

    raise typer.Exit(run(app, instance))


def gateway(cluster: Cluster, address: Address) -> None:
    """The control plane of one Ray cluster."""
    from deploy.gateway_process import run

    asyncio.run(run(cluster=cluster, address=address))


def agent(
    cluster: Cluster,
    pod: Annotated[str, typer.Option("--pod")],
    cpus: Annotated[float, typer.Option("--cpus")],
    address: Address,
) -> None:
    """One pod: runs Ray, sends heartbeats, takes the notice."""
    from deploy.agent_process import run

    raise typer.Exit(asyncio.run(run(cluster=cluster, pod=pod, cpus=cpus, address=address)))
