"""What libtorrent tells: to each torrent's swarm, to who asked for counters, to who shuts out senders of wrong pieces."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import libtorrent

from rayline.errors import PeerError
from runtime_env.durable import write_durably
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.swarm import Swarm

ANSWER_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


class Alerts:
    """Owns the reading of one session's alerts. Does not own the session, nor the thread that calls `take` again and again.

    Life cycle: `refused_listening` once, then `take` and `counters` until `close`, after which nobody waits for an answer.
    """

    def __init__(
        self,
        *,
        session: libtorrent.session,
        cache: BlobCache,
        find: Callable[[libtorrent.torrent_handle], Swarm | None],
        on_wrong_piece: Callable[[str], None],
        on_lost: Callable[[Swarm], None],
    ) -> None:
        """`on_wrong_piece` gets the sender's address, `on_lost` a swarm whose file cannot be read or written any more."""
        self._session = session
        self._cache = cache
        self._find = find
        self._on_wrong_piece = on_wrong_piece
        self._on_lost = on_lost
        self._counters: dict[str, int] = {}
        self._asked = 0
        self._answered = 0
        self._closed = False
        self._counted = threading.Condition(threading.RLock())

    def refused_listening(self) -> str | None:
        """Wait for what listening came to; None when it works."""
        until = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < until:
            self._session.wait_for_alert(100)
            for alert in self._session.pop_alerts():
                if isinstance(alert, libtorrent.listen_succeeded_alert):
                    return None
                if isinstance(alert, libtorrent.listen_failed_alert):
                    return alert.message()
        return "no answer"

    def counters(self) -> dict[str, int]:
        """libtorrent's own, as they are now; raises PeerError where it does not answer."""
        with self._counted:
            asked = self.ask()
            if not self._counted.wait_for(lambda: self._closed or self._answered >= asked, timeout=ANSWER_SECONDS):
                raise PeerError("libtorrent does not answer; restart the node's agent")
            return self._counters

    def ask(self) -> int:
        """Ask for counters, which come to be `latest`; returns the number of this question."""
        with self._counted:
            self._asked += 1
            self._session.post_session_stats()
            return self._asked

    @property
    def latest(self) -> dict[str, int]:
        """The counters that came last; empty before any were asked for."""
        return self._counters

    def close(self) -> None:
        """Who waits for counters gets the last ones."""
        with self._counted:
            self._closed = True
            self._counted.notify_all()

    def take(self, *, wait_ms: int) -> int:
        """Pass on what there is, after `wait_ms` at most; returns how many resume answers were among it."""
        self._session.wait_for_alert(wait_ms)
        resumes = 0
        for alert in self._session.pop_alerts():
            if isinstance(alert, libtorrent.session_stats_alert):
                with self._counted:
                    self._counters = dict(alert.values)
                    self._answered += 1
                    self._counted.notify_all()
            elif isinstance(alert, libtorrent.alerts_dropped_alert):
                # An answer may have been among them.
                with self._counted:
                    self._answered = self._asked
                    self._counted.notify_all()
            elif isinstance(alert, libtorrent.peer_ban_alert):
                self._on_wrong_piece(alert.ip[0])
            elif isinstance(alert, libtorrent.torrent_alert):
                one = self._find(alert.handle)
                resumes += 0 if one is None else self._take_torrent_alert(one, alert)
        return resumes

    def _take_torrent_alert(self, one: Swarm, alert: libtorrent.torrent_alert) -> int:
        if isinstance(alert, libtorrent.save_resume_data_alert):
            if one.fetching:
                write_durably(self._cache.resume_file(one.digest), libtorrent.write_resume_data_buf(alert.params))
            return 1
        if isinstance(alert, libtorrent.save_resume_data_failed_alert):
            return 1
        if isinstance(alert, libtorrent.cache_flushed_alert):
            one.written()
        elif isinstance(alert, libtorrent.storage_moved_alert):
            one.moved.set()
        elif isinstance(
            alert, libtorrent.storage_moved_failed_alert | libtorrent.file_error_alert | libtorrent.torrent_error_alert
        ):
            _log.warning("%s: %s", one.digest, alert.message())
            if one.fetching:
                one.fail(PeerError(f"{one.digest}: {alert.message()}"))
            else:
                self._on_lost(one)
        return 0
