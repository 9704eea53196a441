"""What a node of the peers is told at its start, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from runtime_env.peers.sharing import Patience

GIVE_UP_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """One node. `host` is the address to listen on and, unless `public_host` differs, the one that members connect to; port 0
    takes any. `origin` is for a node that seeds what is new: it super-seeds. `encrypted` hides contents from who can listen on
    the network, at the cost of processor time; all members must agree on it. With `cores` (what the node may use) the node limits
    itself by what it measures (`runtime_env.peers.limits`); without, only by what it is told.
    """

    name: str
    host: str
    port: int = 0
    public_host: str | None = None
    origin: bool = False
    encrypted: bool = False
    cores: float | None = None
    patience: Patience = field(default_factory=Patience)
    give_up_seconds: float = GIVE_UP_SECONDS


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """Bytes of blobs moved since the start, without protocol; `unwritten` wait for the disk at this moment; `banned` are the
    addresses of members that sent wrong pieces."""

    received: int
    sent: int
    from_store: int
    failed: int
    unwritten: int
    banned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerRates:
    """Bytes per second over the last two seconds: from peers and the store together, and to peers."""

    receives: float
    sends: float
