"""`rayline env peers`: who gives environments and models to whom, what each node has, how fast it moves."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.cli.options import DEFAULT_STATE_DIR, Bootstrap, KafkaConfig, Output, StateDir, StoreUrl, kafka_settings
from deploy.cli.output import OutputFormat, note, show, table
from rayline.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.peer_inspection import LayerSpread, PeerNodeState

_NODES: Final = ("NODE", "ADDRESS", "HOLDS", "FETCHES", "RECEIVES", "SENDS", "LIMIT")
_LAYERS: Final = ("LAYER", "SIZE", "HELD BY", "FETCHED BY")


def peers(
    ref: Annotated[
        str | None, typer.Argument(metavar="[BUNDLE]", help="Also which nodes have the layers of this bundle.")
    ] = None,
    store: StoreUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    bootstrap_servers: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Nodes that share environments and models: what each holds and fetches, its rates and limit.

    Naming a bundle needs RAYLINE_PEERS_TOKEN, as on the nodes: without it nobody can tell what they share.
    """
    from deploy.peer_inspection import read_peers

    settings = kafka_settings(bootstrap_servers, kafka_config, state_dir)
    found = asyncio.run(read_peers(settings))
    layers = [] if ref is None else _spread(found, ref, store, state_dir)
    record = {"nodes": [one.as_dict() for one in found], "layers": [one.as_dict() for one in layers]}
    text = [table(_NODES, [_node_row(one) for one in found])] if found else []
    if layers:
        text.append(table(_LAYERS, [_layer_row(one, len(found)) for one in layers]))
    if found:
        received, sent = sum(one.peer.receives for one in found), sum(one.peer.sends for one in found)
        text.append(f"{len(found)} nodes receive {_rate(received)} and send {_rate(sent)} in all")
    elif output is OutputFormat.TEXT:
        note("no node shares what it has: RAYLINE_PEERS_TOKEN and RAYLINE_PEERS_HOST are set for those that do")
    if text or output is not OutputFormat.TEXT:
        show(output, record, "\n\n".join(text))


def _spread(found: list[PeerNodeState], ref: str, store: str | None, state_dir: Path) -> list[LayerSpread]:
    from deploy.cli.env import readable_store
    from deploy.peer_inspection import spread_of
    from runtime_env.peers.source import MIN_PEER_BYTES

    token = os.environ.get("RAYLINE_PEERS_TOKEN")
    if not token:
        raise ConfigError("RAYLINE_PEERS_TOKEN is not set: give the one that nodes have, to tell which layers they share")
    place = readable_store(store, state_dir)
    layers = [one for one in place.get_manifest(ref).bundle.layers if one.size_bytes >= MIN_PEER_BYTES]
    return spread_of(found, {place.get_metainfo(one.digest).tag(token.encode()): one for one in layers})


def _node_row(one: PeerNodeState) -> tuple[object, ...]:
    peer = one.peer
    limit = "–" if peer.limit is None else _rate(peer.limit)
    address = f"{peer.host}:{peer.port}"
    return (one.report.key, address, len(peer.holds), len(peer.wants), _rate(peer.receives), _rate(peer.sends), limit)


def _layer_row(one: LayerSpread, nodes: int) -> tuple[object, ...]:
    fetching = ", ".join(one.fetched_by[:3]) + (" …" if len(one.fetched_by) > 3 else "")
    return (one.layer.name, f"{one.layer.size_bytes / 2**20:.1f} MiB", f"{len(one.held_by)} of {nodes}", fetching or "–")


def _rate(bytes_per_second: int) -> str:
    return f"{bytes_per_second / 1e6:.1f} MB/s"
