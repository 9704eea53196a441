"""How fast a node may move blobs: what its link and its processor can spare, its share of what the whole network may carry."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

LINK_SHARE: Final = 0.5
CPU_SHARE: Final = 0.25
MIN_RATE: Final = 2**20
TEST_SECONDS: Final = 1.5
TEST_BYTES: Final = 64 * 2**20
BURST_SECONDS: Final = 0.25
_CHUNK: Final = 256 * 2**10


@dataclass(frozen=True, slots=True)
class NodeSpeed:
    """What a node was measured to do, in bytes per second: its link alone, and one of its cores at hashing."""

    link: float
    hashing: float
    cores: float


def node_limit(speed: NodeSpeed, *, link_share: float = LINK_SHARE, cpu_share: float = CPU_SHARE) -> int:
    """Bytes per second in each direction that leave the rest of the link and of the processor to serving.

    Every byte is hashed three times on its way (block, piece's tree, whole blob) and copied through sockets and files, which
    costs about as much again: hence the sixth of what the cores' share could hash.
    """
    by_cpu = speed.hashing * speed.cores * cpu_share / 6
    return max(MIN_RATE, int(min(speed.link * link_share, by_cpu)))


def share_of(total: int | None, limit: int | None, *, fetching: int) -> int | None:
    """A fetching node's limit when the network as a whole may carry `total` and `fetching` nodes (itself included) fetch.

    Every byte in flight is received by exactly one of them, so that limits on receiving bound the sum. None is no limit.
    """
    mine = None if total is None else max(1, total // max(1, fetching))
    limits = [one for one in (mine, limit) if one is not None]
    return min(limits) if limits else None


def split(limit: int, *, fetching: int) -> tuple[int, int]:
    """What of a fetching node's limit is for peers and for the store while it reads there.

    In a steady flow a node reads its own pieces, one of `fetching` parts, and peers bring the rest; a quarter at least is for the
    store, which may have to replace them.
    """
    store = max(1, limit // min(4, max(1, fetching)))
    return max(1, limit // 8, limit - store), store


def measure_link(
    open_source: Callable[[], BinaryIO],
    *,
    seconds: float = TEST_SECONDS,
    max_bytes: int = TEST_BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Bytes per second that one connection to the store gives; reads for `seconds` or `max_bytes` at most.

    Raises:
        OSError, StoreError: what the source raises.
        ValueError: the source is empty.
    """
    with open_source() as source:
        started, read = clock(), 0
        while read < max_bytes and clock() - started < seconds:
            data = source.read(_CHUNK)
            if not data:
                break
            read += len(data)
        elapsed = clock() - started
    if read == 0:
        raise ValueError("nothing to measure the link with: the source is empty")
    return read / max(elapsed, 1e-6)


def measure_hashing(*, seconds: float = 0.05, clock: Callable[[], float] = time.thread_time) -> float:
    """Bytes per second of processor time that one core hashes with SHA-256."""
    data = bytes(2**20)
    started, hashed = clock(), 0
    while clock() - started < seconds:
        hashlib.sha256(data).digest()
        hashed += len(data)
    return hashed / (clock() - started)


class Pace:
    """Spreads bytes over time. Who was held up by something else may catch up on BURST_SECONDS, no more. Pure: times come in as
    arguments."""

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def delay_seconds(self, count: int, rate: int | None, now: float) -> float:
        """How long to wait before going on, after `count` bytes were moved."""
        if rate is None:
            return 0.0
        self._free_at = max(self._free_at, now - BURST_SECONDS) + count / rate
        return max(0.0, self._free_at - now)
