"""`drain`, `cordon`, `uncordon`: orders to one node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, kafka_settings
from deploy.cli.output import OutputFormat, show

if TYPE_CHECKING:
    from deploy.node_orders import Answered
    from rayline.bus import KafkaSettings

Node = Annotated[str, typer.Argument(metavar="NODE", help="CLUSTER/POD, or the pod's name alone.")]


def drain(
    node: Node,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the node is gone, not already when it drains.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for --wait.")] = 60,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Have a node finish or hand back its work and end. That cannot be taken back: to keep work away for a while, `cordon` it."""
    from deploy.node_orders import drain_node

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    _show(output, asyncio.run(drain_node(settings, node, gone_seconds=timeout if wait else None)))


def cordon(
    node: Node,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Keep new work away from a node, until `uncordon`; what runs there ends there."""
    _cordon(node, True, kafka_settings(bootstrap_servers, kafka_config, state_dir), output)


def uncordon(
    node: Node,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Let a node that was cordoned have new work again."""
    _cordon(node, False, kafka_settings(bootstrap_servers, kafka_config, state_dir), output)


def _cordon(node: str, cordoned: bool, settings: KafkaSettings, output: OutputFormat) -> None:
    from deploy.node_orders import cordon_node

    _show(output, asyncio.run(cordon_node(settings, node, cordoned=cordoned)), cordoned=cordoned)


def _show(output: OutputFormat, answered: Answered, *, cordoned: bool | None = None) -> None:
    record = {"node": answered.node, "state": answered.state.name.lower(), "seconds": round(answered.seconds, 3)}
    if cordoned is None:
        text = f"{answered.node} is {record['state']} after {answered.seconds:.1f} s"
    else:
        record["cordoned"] = cordoned
        text = f"{answered.node} {'gets no new work' if cordoned else 'gets new work again'}"
    show(output, record, text)
