"""A node's limits as they are at a moment: its own, its share of what the network may carry, and what of it goes to the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from runtime_env.peers.limits import Pace, share_of, split
from runtime_env.peers.valve import Valve


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes per second, None for none: what was set (`own_download`, `own_upload`, `total`), and what follows from it now:
    `receive` in all, of which `download` from peers and `store` from the store, and `upload`. `total` is for all nodes together.
    """

    own_download: int | None = None
    own_upload: int | None = None
    total: int | None = None
    receive: int | None = None
    download: int | None = None
    upload: int | None = None
    store: int | None = None


class Throttle:
    """Owns the limits of one node. Does not own what obeys them: libtorrent is told by `apply` (download, upload) what it takes
    for theirs to hold, reads from the store ask `wait_seconds`. Usable from any thread.
    """

    def __init__(self, *, apply: Callable[[int | None, int | None], None]) -> None:
        self._apply = apply
        self._lock = threading.Lock()
        self._pace = Pace()
        self._valve = Valve()
        self._told: tuple[int | None, int | None] = (None, None)
        self._limits = Limits()
        self._fetching = 0
        self._reading = False

    @property
    def limits(self) -> Limits:
        return self._limits

    def set_own(self, *, download: int | None, upload: int | None) -> None:
        with self._lock:
            self._update(own=(download, upload), total=self._limits.total)

    def set_total(self, total: int | None) -> None:
        """What the network as a whole may carry."""
        with self._lock:
            self._update(own=(self._limits.own_download, self._limits.own_upload), total=total)

    def observe(self, *, fetching: int, reading: bool) -> None:
        """How many nodes fetch, this one included, and whether this one reads from the store."""
        with self._lock:
            self._fetching, self._reading = fetching, reading
            self._update(own=(self._limits.own_download, self._limits.own_upload), total=self._limits.total)

    def steer(self, received: int, now: float, *, waiting: bool) -> None:
        """Ten times a second or so while this node fetches: bytes that peers have sent since the start, and whether anything
        waits for the limit. So that the network's holds at each moment; a node's own may hold in the mean, which moves more."""
        with self._lock:
            limit = self._limits.download
            if limit is not None and self._limits.total is not None:
                self._tell(self._valve.rate(limit, received, now, waiting=waiting), self._limits.upload)

    def wait_seconds(self, count: int) -> float:
        """How long to wait after `count` bytes were read from the store; ask again after a while with 0, limits may change."""
        with self._lock:
            return self._pace.delay_seconds(count, self._limits.store, time.monotonic())

    def _update(self, *, own: tuple[int | None, int | None], total: int | None) -> None:
        receive = download = store = share_of(total, own[0], fetching=self._fetching)
        if download is not None and self._reading:
            download, store = split(download, fetching=self._fetching)
        before = self._limits
        self._limits = Limits(*own, total, receive, download, share_of(total, own[1], fetching=1), store)
        if (self._limits.download, self._limits.upload) != (before.download, before.upload):
            self._tell(self._limits.download, self._limits.upload)

    def _tell(self, download: int | None, upload: int | None) -> None:
        if (download, upload) != self._told:
            self._told = (download, upload)
            self._apply(download, upload)
