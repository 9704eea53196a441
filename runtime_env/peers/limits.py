"""How fast a node may move blobs: what its link and its processor can spare, its share of what the whole network may carry."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LINK_SHARE: Final = 0.5
CPU_SHARE: Final = 0.125
# What a byte costs on its whole way, as a multiple of hashing it once.
HASHINGS_A_BYTE: Final = 12
# The rest is what is received beside payload, and what is not held back to the byte.
TOTAL_SHARE: Final = 0.95
MIN_RATE: Final = 2**20
TEST_SECONDS: Final = 1.5
# What waited in buffers while this process was held up comes faster than the link; not for so long.
STRETCH_SECONDS: Final = 0.7
RETEST_SECONDS: Final = 5.0
MAX_RETEST_SECONDS: Final = 600.0
PINNED_SHARE: Final = 0.8
BETTER_FACTOR: Final = 1.1
BURST_SECONDS: Final = 0.25
METER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class NodeSpeed:
    """What a node was measured to do, in bytes per second: its link alone, and one of its cores at hashing."""

    link: float
    hashing: float
    cores: float


def node_limit(speed: NodeSpeed, *, link_share: float = LINK_SHARE, cpu_share: float = CPU_SHARE) -> int:
    """Bytes per second in each direction that leave the rest of the link and of the processor to serving.

    Every byte is hashed three times on its way (block, piece's tree, whole blob), copied through sockets and files, and given on
    about once: 6 to 8 s of processor time a GiB where hashing takes 0.6 s (`python -m bench.distribution`).
    """
    by_cpu = speed.hashing * speed.cores * cpu_share / HASHINGS_A_BYTE
    return max(MIN_RATE, int(min(speed.link * link_share, by_cpu)))


def share_of(total: int | None, limit: int | None, *, fetching: int) -> int | None:
    """A fetching node's limit when the network as a whole may carry `total` and `fetching` nodes (itself included) fetch.

    Every byte in flight is received by exactly one of them, so that limits on receiving bound the sum. TOTAL_SHARE is shared out,
    so that the sum stays below the total. None is no limit.
    """
    mine = None if total is None else max(1, int(total * TOTAL_SHARE / max(1, fetching)))
    limits = [one for one in (mine, limit) if one is not None]
    return min(limits) if limits else None


def split(limit: int, *, fetching: int) -> tuple[int, int]:
    """What of a fetching node's limit is for peers and for the store while it reads there.

    In a steady flow a node reads its own pieces, one of `fetching` parts, and peers bring the rest; a quarter at least is for the
    store, which may have to replace them.
    """
    store = max(1, limit // min(4, max(1, fetching)))
    return max(1, limit // 8, limit - store), store


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
        self._rate: int | None = None

    def delay_seconds(self, count: int, rate: int | None, now: float) -> float:
        """How long to wait before going on, after `count` bytes were moved; what was still to wait for takes as long as it
        takes at `rate`."""
        if rate != self._rate:
            owed = max(0.0, self._free_at - now) * (self._rate or 0)
            self._free_at = now + owed / rate if rate is not None and owed else min(self._free_at, now)
            self._rate = rate
        if rate is None:
            return 0.0
        self._free_at = max(self._free_at, now - BURST_SECONDS) + count / rate
        return max(0.0, self._free_at - now)


class LinkProbe:
    """How fast the link is, from what a node moves anyway: no byte is read for the test alone. Pure.

    For TEST_SECONDS of transfer the node is not held back for the link's sake; the fastest stretch is the link's speed. That may
    have been too little (twenty nodes that start at once share the store): a node that then uses up its limit tests again, after
    twice as long each time that this brought nothing.
    """

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._link: float | None = None
        self._testing = True
        self._seconds = 0.0
        self._best = 0.0
        self._stretch: deque[tuple[float, int]] = deque()
        self._pause = RETEST_SECONDS

    @property
    def link(self) -> float | None:
        """Bytes per second; None while it is tested."""
        return None if self._testing else self._link

    def observe(self, moved: int, now: float, *, limit: int | None) -> None:
        """`moved` bytes came in since the start; `limit` is what held for them since the last call."""
        if self._last is not None and now > self._last[0] and moved > self._last[1]:
            self._take(now - self._last[0], moved - self._last[1], limit)
        self._last = (now, moved)

    def _take(self, seconds: float, count: int, limit: int | None) -> None:
        rate = count / seconds
        if self._testing:
            self._seconds += seconds
            self._best = max(self._best, self._stretch_rate(seconds, count))
            if self._seconds >= TEST_SECONDS:
                self._end_test()
        elif limit is not None and rate >= PINNED_SHARE * limit:
            self._seconds += seconds
            if self._seconds >= self._pause:
                self._testing, self._seconds, self._best = True, 0.0, 0.0

    def _stretch_rate(self, seconds: float, count: int) -> float:
        """Of the last STRETCH_SECONDS or more, once there are so many."""
        self._stretch.append((seconds, count))
        while sum(one for one, _ in self._stretch) - self._stretch[0][0] >= STRETCH_SECONDS:
            self._stretch.popleft()
        lasted = sum(one for one, _ in self._stretch)
        return sum(one for _, one in self._stretch) / lasted if lasted >= STRETCH_SECONDS else 0.0

    def _end_test(self) -> None:
        better = self._link is None or self._best > BETTER_FACTOR * self._link
        self._pause = RETEST_SECONDS if better else min(MAX_RETEST_SECONDS, 2 * self._pause)
        self._testing, self._seconds, self._link = False, 0.0, self._best
        self._stretch.clear()


class RateMeter:
    """Bytes per second over the last METER_SECONDS or so, from counts that only grow. Pure."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def observe(self, total: int, now: float) -> None:
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[1][0] >= METER_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (started, before), (ended, after) = self._seen[0], self._seen[-1]
        return (after - before) / (ended - started) if ended > started else 0.0
