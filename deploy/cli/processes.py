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
    zone: Annotated[str | None, typer.Option("--zone")] = None,
) -> None:
    """One pod: runs Ray, sends heartbeats, takes the notice."""
    from deploy.agent_process import run

    raise typer.Exit(asyncio.run(run(cluster=cluster, pod=pod, cpus=cpus, address=address, zone=zone)))


def keeper(name: Annotated[str, typer.Option("--name", help="A lasting name: it takes its place back after a restart.")]) -> None:
    """See to it that the clusters that are wanted are there: one keeper leads, the others stand by."""
    from deploy.keeper.process import run

    raise typer.Exit(asyncio.run(run(name=name)))


def resource(
    name: Annotated[str, typer.Option("--name", help="A lasting name, told apart from the others of its group.")],
    group: Annotated[str, typer.Option("--group", help="Resources of one group share a view; others do not see it.")] = "default",
    cluster: Annotated[
        list[str] | None, typer.Option("--cluster", metavar="PATTERN", help="Listen to these clusters only; repeatable.")
    ] = None,
    below: Annotated[
        list[str] | None, typer.Option("--below", metavar="GROUP", help="Hear the resources of this group instead of nodes.")
    ] = None,
    interval_seconds: Annotated[float, typer.Option("--interval", min=0.1, max=60.0, help="Seconds between whole rounds.")] = 1.0,
) -> None:
    """Merge what nodes report, and publish the view."""
    from deploy.resource_process import run

    asyncio.run(run(name=name, group=group, clusters=cluster or (), below=below or (), interval_seconds=interval_seconds))
