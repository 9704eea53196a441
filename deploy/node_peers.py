"""How a pod takes part in sharing what nodes fetch: its variables, turned into a node of the peers and what it hears."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from deploy.process_environment import (
    PEERS_ENCRYPT_VARIABLE,
    PEERS_HOST_VARIABLE,
    PEERS_PORT_VARIABLE,
    PEERS_PUBLIC_HOST_VARIABLE,
    PEERS_TOKEN_VARIABLE,
    is_set,
)
from rayline.errors import ConfigError, PeerError
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.node import PeerNode
from runtime_env.peers.options import PeerOptions
from runtime_env.peers.sharing import Patience
from runtime_env.peers.source import PeerSource
from runtime_env.store import Store
from workers.peering import Peering

MIN_TOKEN_CHARS: Final = 16
# Two beats: nodes that begin at once have heard of each other by then.
SETTLE_SECONDS: Final = 2.5
_MAX_PORT: Final = 65_535

_log = logging.getLogger(__name__)


def open_peers(
    environment: Mapping[str, str], *, node: str, cores: float, store: Store, cache: BlobCache
) -> tuple[PeerSource, Peering] | None:
    """What brings blobs with the neighbours' help, and what hears of them; None where no token is set, or where this node cannot
    take part: then blobs come from the store alone. `node` is `cluster/name`, `cores` what the node may use.

    Raises:
        ConfigError: a variable cannot be read.
    """
    token = environment.get(PEERS_TOKEN_VARIABLE)
    if not token:
        return None
    peer = PeerNode(options=_options(environment, token, node=node, cores=cores), cache=cache, store=store)
    try:
        peer.start()
    except PeerError as error:
        # Worse than slow would be a pod that does not start.
        _log.error("this node fetches from the store alone, and gives to nobody: %s", error)
        return None
    source = PeerSource(node=peer, store=store, cache=cache, token=token.encode())
    _log.info("peers: port %d, %d blobs to give", peer.port, source.offer())
    return source, Peering(peer=peer)


def _options(environment: Mapping[str, str], token: str, *, node: str, cores: float) -> PeerOptions:
    host = environment.get(PEERS_HOST_VARIABLE)
    if len(token) < MIN_TOKEN_CHARS:
        raise ConfigError(f"{PEERS_TOKEN_VARIABLE} has {len(token)} characters: give a random one of {MIN_TOKEN_CHARS} at least")
    if not host:
        raise ConfigError(f"{PEERS_HOST_VARIABLE} is not set: give the address at which other nodes reach this pod")
    port = environment.get(PEERS_PORT_VARIABLE) or "0"
    if not port.isdigit() or int(port) > _MAX_PORT:
        raise ConfigError(f"{PEERS_PORT_VARIABLE} is {port!r}: give a port from 1 to {_MAX_PORT}, or 0 for any")
    return PeerOptions(
        name=node,
        host=host,
        port=int(port),
        public_host=environment.get(PEERS_PUBLIC_HOST_VARIABLE) or None,
        encrypted=is_set(environment.get(PEERS_ENCRYPT_VARIABLE)),
        cores=cores,
        patience=Patience(settle=SETTLE_SECONDS),
    )
