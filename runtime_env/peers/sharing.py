"""Who reads which piece from the store: each piece has one owner among those who fetch, and everybody else gets it from there.

Owners are found alike by all (rendezvous hashing), so that nobody has to be asked; a member that leaves hands on its share alone.
It is what super seeding does, but for any store that can be read from an offset, and from the first second on: libtorrent 2.1
offers a super seeded piece 10 s after a peer connected, then one at a time. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# Those who start together hear of each other before one reads everything.
SETTLE_SECONDS: Final = 1.0
# A member that holds the whole is given so long to be connected.
LONELY_SECONDS: Final = 2.0
# One that is connected, so long to bring something.
STALL_SECONDS: Final = 6.0
# Pieces that stand together have one owner, so that one request reads them.
RUN_PIECES: Final = 4


@dataclass(frozen=True, slots=True)
class Patience:
    """The three times above, in seconds."""

    settle: float = SETTLE_SECONDS
    lonely: float = LONELY_SECONDS
    stall: float = STALL_SECONDS


@dataclass(frozen=True, slots=True)
class Situation:
    """One fetch at one moment. `here` says of each piece whether it is here, `availability` how many connected peers have it;
    `holders` counts members that hold the whole, `sources` those of them that are connected. `joined_seconds` is the time since
    the fetch began, `quiet_seconds` since peers brought anything, `sourceless_seconds` since a holder was connected (both: or
    since the start).
    """

    here: Sequence[bool]
    availability: Sequence[int]
    holders: int
    sources: int
    joined_seconds: float
    quiet_seconds: float
    sourceless_seconds: float


def pieces_to_read(now: Situation, *, me: str, nodes: tuple[str, ...], patience: Patience) -> list[int]:
    """Up to RUN_PIECES adjoining pieces to read from the store; none while peers bring them, or may soon.

    `nodes` are the names of all that fetch, `me` among them, sorted.
    """
    stalled = now.quiet_seconds >= patience.stall
    if now.joined_seconds < patience.settle or (now.sources and not stalled):
        return []
    if now.holders and not now.sources and now.sourceless_seconds < patience.lonely:
        return []
    missing = [piece for piece, here in enumerate(now.here) if not here]
    # What a connected peer has is not read, unless it does not come. A super seeding holder shows nothing of what it has.
    candidates = missing if now.sources else [piece for piece in missing if now.availability[piece] == 0]
    own = owned(len(now.here), nodes, me)
    mine = [piece for piece in candidates if piece in own]
    if mine:
        return _run(mine)
    # The owners of the rest do not read, or those who have it do not give it.
    return _run(candidates or missing)[:1] if stalled else []


@lru_cache(maxsize=256)
def owned(pieces: int, nodes: tuple[str, ...], me: str) -> frozenset[int]:
    """The pieces that `me` reads for all."""
    groups = {group for group in range(-(-pieces // RUN_PIECES)) if max(nodes, key=lambda node: _weight(group, node)) == me}
    return frozenset(piece for piece in range(pieces) if piece // RUN_PIECES in groups)


def _weight(group: int, node: str) -> bytes:
    return hashlib.blake2b(f"{group}/{node}".encode(), digest_size=8).digest()


def _run(pieces: Sequence[int]) -> list[int]:
    """The first pieces that adjoin, as many as one request shall read."""
    run: list[int] = []
    for piece in pieces:
        if run and (piece != run[-1] + 1 or len(run) == RUN_PIECES):
            break
        run.append(piece)
    return run
