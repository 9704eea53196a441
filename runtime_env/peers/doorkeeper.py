"""Who may connect to a node and be called by it: the addresses of members that have not sent wrong pieces lately."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import libtorrent

from runtime_env.peers.members import Member
from runtime_env.peers.session import filter_of, share_addresses

BAN_SECONDS: Final = 600.0

_log = logging.getLogger(__name__)


class Doorkeeper:
    """Owns the list of members that a node knows, and the session's address filter. Usable from any thread.

    `session` gives the session whose door it is; it is asked each time, as there is none before the node's start.
    """

    def __init__(self, *, session: Callable[[], libtorrent.session]) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._shared = False
        self._banned: dict[str, float] = {}
        self._filtered: frozenset[str] = frozenset()
        self.members: tuple[Member, ...] = ()

    @property
    def banned(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._banned))

    def set_members(self, members: Iterable[Member]) -> None:
        """Who is alive besides this node; replaces what was said before, and cuts off who left."""
        with self._lock:
            self.members = tuple(members)
            shared = len({member.host for member in self.members}) < len(self.members)
            if shared != self._shared:
                self._shared = shared
                share_addresses(self._session(), shared)
            self._apply()

    def ban(self, host: str) -> None:
        """A member that sent a wrong piece: nothing to and from its address for a while."""
        _log.warning("%s sent a wrong piece and is shut out for %g s", host, BAN_SECONDS)
        with self._lock:
            self._banned[host] = time.monotonic() + BAN_SECONDS
            self._apply()

    def look(self, now: float) -> None:
        """Lift what is over; `now` is monotonic."""
        with self._lock:
            for host in [host for host, until in self._banned.items() if until < now]:
                del self._banned[host]
            self._apply()

    def _apply(self) -> None:
        hosts = frozenset(member.host for member in self.members) - self._banned.keys()
        if hosts != self._filtered:
            self._filtered = hosts
            self._session().set_ip_filter(filter_of(hosts))
