"""A node's part in moving blobs: fetches from peers and, where they do not bring something, from the store; gives what it has."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import libtorrent

from rayline.errors import BlobCorrupt, PeerError
from runtime_env.bundle import hex_of
from runtime_env.peers import sharing, swarm
from runtime_env.peers.alerts import ANSWER_SECONDS, Alerts
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.doorkeeper import Doorkeeper
from runtime_env.peers.limits import LinkProbe, NodeSpeed, RateMeter, measure_hashing, node_limit
from runtime_env.peers.members import Member
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.peers.options import PeerOptions, PeerRates, PeerStatistics
from runtime_env.peers.session import apply_limits, low_priority_threads, open_session
from runtime_env.peers.sharing import Situation
from runtime_env.peers.store_reader import StoreReader
from runtime_env.peers.swarm import Progress, Swarm
from runtime_env.peers.throttle import Limits, Throttle
from runtime_env.store import Store

LOOK_SECONDS: Final = 0.25
STEER_SECONDS: Final = 0.1
_CLOSE_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What exists between `start` and `close`."""

    session: libtorrent.session
    port: int
    alerts: Alerts
    reader: StoreReader | None


class PeerNode:
    """Owns a libtorrent session, the thread that looks after it, and the blobs that come into its cache. Does not own membership
    (`set_members` gets it from outside), the store, or leases.

    Life cycle: `start` listens; `fetch` and `give` in any number of threads; `close` remembers how far fetches are and ends.
    Also a context manager.
    """

    def __init__(self, *, options: PeerOptions, cache: BlobCache, store: Store | None = None) -> None:
        self._options = options
        self._cache = cache
        self._store = store
        self._incarnation = time.time_ns() // 1_000_000
        self._parts: _Parts | None = None
        self._low = low_priority_threads(3, "rayline-peers")
        self._stop = threading.Event()
        self._pump = threading.Thread(target=self._run, name="rayline-peers-pump", daemon=True)
        self._lock = threading.RLock()
        self._swarms: dict[str, Swarm] = {}
        self._fetches: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._told = False
        self._hashing = 0.0
        self._probe = LinkProbe()
        self._receiving, self._sending = RateMeter(), RateMeter()
        self._door = Doorkeeper(session=lambda: self._open.session)
        self._throttle = Throttle(apply=lambda download, upload: apply_limits(self._open.session, download, upload))

    def __enter__(self) -> PeerNode:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def port(self) -> int:
        return self._open.port

    @property
    def limits(self) -> Limits:
        return self._throttle.limits

    def rates(self) -> PeerRates:
        """At once, from the last look, a quarter of a second ago at most."""
        return PeerRates(self._receiving.rate, self._sending.rate)

    def start(self) -> None:
        """Raises PeerError where the address cannot be listened on."""
        host = self._options.host
        session = self._low.submit(open_session, host=host, port=self._options.port, encrypted=self._options.encrypted).result()
        alerts = Alerts(
            session=session, cache=self._cache, find=self._swarm_of, on_wrong_piece=self._door.ban, on_lost=self._leave
        )
        refused = alerts.refused_listening()
        if refused is not None:
            self._low.shutdown()
            raise PeerError(
                f"peers cannot reach this node: {host} port {self._options.port}: {refused}; give another address or port"
            )
        reader = None if self._store is None else self._reader_of(self._store)
        self._parts = _Parts(session, session.listen_port(), alerts, reader)
        if self._options.cores is not None:
            self._hashing = measure_hashing()
        self._cache.before_eviction = self._leave_all
        self._pump.start()

    def close(self) -> None:
        """Remember how far each fetch is, and end. Fetches that still wait raise PeerError."""
        if self._parts is None:
            return
        self._stop.set()
        self._pump.join()
        self._parts.alerts.close()
        with self._lock:
            waiting = [one for one in self._swarms.values() if one.fetching]
        for one in waiting:
            one.save()
            one.fail(PeerError(f"the node closes; {one.digest} goes on from here at the next start"))
        until = time.monotonic() + _CLOSE_SECONDS
        saved = 0
        while saved < len(waiting) and time.monotonic() < until:
            saved += self._parts.alerts.take(wait_ms=100)
        self._cache.before_eviction = lambda _: None
        self._low.shutdown()
        self._swarms.clear()
        self._parts = None

    def set_members(self, members: Iterable[Member]) -> None:
        """Who is alive, where, with what; replaces what was said before. Nobody else can connect; who left is cut off."""
        self._door.set_members(member for member in members if member.name != self._options.name)
        with self._lock:
            self._tell_throttle()

    def member(self) -> Member:
        """What the others should be told of this node."""
        with self._lock:
            holds = frozenset(one.tag for one in self._swarms.values() if not one.fetching)
            wants = frozenset(one.tag for one in self._swarms.values() if one.fetching)
        host = self._options.public_host or self._options.host
        return Member(self._options.name, host, self.port, self._incarnation, holds, wants)

    def holds(self) -> frozenset[str]:
        """Digests of the blobs that are here whole."""
        return self._cache.digests()

    def set_limits(self, *, download: int | None, upload: int | None) -> None:
        """This node's own limits, bytes per second, at once; None for none or, where neither is given and it measures
        (`PeerOptions.cores`), for what it finds."""
        self._told = download is not None or upload is not None
        self._throttle.set_own(download=download, upload=upload)

    def set_global_limit(self, total: int | None) -> None:
        """What the network as a whole may carry, bytes per second; a fetching node takes its share of it at once."""
        self._throttle.set_total(total)

    def give(self, metainfo: BlobMetainfo, token: bytes) -> None:
        """Offer a blob of the cache to members that hold the same token; raises PeerError where it is not in the cache."""
        if self._cache.find(metainfo.digest) is None:
            raise PeerError(f"{metainfo.digest} is not in {self._cache.path}: fetch it first")
        self.give_from(self._cache.path, metainfo, token)

    def give_from(self, folder: Path, metainfo: BlobMetainfo, token: bytes) -> None:
        """Offer a blob that lies elsewhere under the digits of its digest, such as in a folder store."""
        with self._lock:
            if metainfo.tag(token) not in self._swarms:
                self._join(
                    metainfo, token, swarm.giving(metainfo, token, folder, super_seeding=self._options.origin), fetching=False
                )

    def fetch(self, metainfo: BlobMetainfo, token: bytes, *, progress: Progress | None = None) -> Path:
        """Bring a blob into the cache and return its path; from then on it is given to others. Blocks.

        Raises:
            DiskFull: the quota leaves no room.
            BlobCorrupt: the store itself holds other bytes than the digest says.
            PeerError: neither peers nor the store brought anything for `give_up_seconds`, or the node closes.
        """
        digest = metainfo.digest
        with self._lock:
            turn = self._fetches[digest]
        with turn:
            if self._cache.find(digest) is None:
                with self._cache.room_for(digest, metainfo.size_bytes):
                    self._fetch(metainfo, token, progress)
            self.give(metainfo, token)
            return self._cache.blob(digest)

    def statistics(self) -> PeerStatistics:
        """Raises PeerError where libtorrent does not answer."""
        parts = self._open
        counters = parts.alerts.counters()
        return PeerStatistics(
            received=counters["net.recv_payload_bytes"],
            sent=counters["net.sent_payload_bytes"],
            from_store=0 if parts.reader is None else parts.reader.bytes_read,
            failed=counters["net.recv_failed_bytes"],
            unwritten=counters["disk.queued_write_bytes"],
            banned=self._door.banned,
        )

    @property
    def _open(self) -> _Parts:
        if self._parts is None:
            raise PeerError("the node is not started, or closed")
        return self._parts

    def _reader_of(self, store: Store) -> StoreReader:
        return StoreReader(
            store=store,
            throttle=self._throttle,
            due=lambda one: self._due(one, one.observe(self._door.members, time.monotonic())),
            unwritten_bytes=lambda: self._open.alerts.counters().get("disk.queued_write_bytes", 0),
            stop=self._stop,
        )

    def _fetch(self, metainfo: BlobMetainfo, token: bytes, progress: Progress | None) -> None:
        digest, incoming = metainfo.digest, self._cache.incoming
        resume_file = self._cache.resume_file(digest)
        resume = resume_file.read_bytes() if resume_file.exists() else None
        with self._lock:
            one = self._join(metainfo, token, swarm.fetching(metainfo, token, incoming, resume), fetching=True)
            one.progress = progress
        try:
            one.finished.wait()
            if one.error is not None:
                raise one.error
            if not self._is_whole(one, incoming / hex_of(digest)):
                self._cache.forget_part(digest)
                raise BlobCorrupt(
                    f"{digest}: its pieces are as described, the whole is not: the description in the store is wrong, or the "
                    "disk lost what was written; fetch again, and publish the bundle again if it stays so"
                )
            self._await(one.moved, lambda: one.handle.move_storage(str(self._cache.path)), "moving the blob")
        except BaseException:
            self._leave(one)
            raise
        resume_file.unlink(missing_ok=True)
        with self._lock:
            one.now_whole()
            self._tell_throttle()

    def _is_whole(self, one: Swarm, part: Path) -> bool:
        """Whether the file has the blob's digest, read when it is written; again, as an earlier answer may come late."""
        for _ in range(2):
            self._await(one.flushed, one.flush, "writing the blob")
            if self._low.submit(_sha256_of, part).result() == one.digest:
                return True
        return False

    def _await(self, answered: threading.Event, ask: Callable[[], None], what: str) -> None:
        ask()
        if not answered.wait(ANSWER_SECONDS):
            raise PeerError(f"{what} took more than {ANSWER_SECONDS:g} s: look at the disk")

    def _join(self, metainfo: BlobMetainfo, token: bytes, parameters: libtorrent.add_torrent_params, *, fetching: bool) -> Swarm:
        handle = self._open.session.add_torrent(parameters)
        tag = metainfo.tag(token)
        one = Swarm(metainfo=metainfo, tag=tag, handle=handle, fetching=fetching, now=time.monotonic())
        self._swarms[tag] = one
        self._tell_throttle()
        return one

    def _leave(self, one: Swarm) -> None:
        with self._lock:
            if self._swarms.pop(one.tag, None) is not None and self._parts is not None:
                self._parts.session.remove_torrent(one.handle)
                self._tell_throttle()

    def _leave_all(self, digest: str) -> None:
        """The blob is about to go: nobody gets it from here any more."""
        with self._lock:
            for one in [one for one in self._swarms.values() if one.digest == digest]:
                self._leave(one)

    def _swarm_of(self, handle: libtorrent.torrent_handle) -> Swarm | None:
        with self._lock:
            return next((one for one in self._swarms.values() if one.handle == handle), None)

    def _tell_throttle(self) -> None:
        fetching = sum(1 for member in self._door.members if member.wants) + any(one.fetching for one in self._swarms.values())
        self._throttle.observe(fetching=fetching, reading=any(one.reading for one in self._swarms.values()))

    def _run(self) -> None:
        """The pump: takes alerts, looks at each fetch four times a second, and more often whether limits hold."""
        alerts = self._open.alerts
        looked_at = steered_at = float("-inf")
        while not self._stop.is_set():
            alerts.take(wait_ms=50)
            now = time.monotonic()
            if now - steered_at >= STEER_SECONDS:
                steered_at = now
                self._steer(now)
            if now - looked_at >= LOOK_SECONDS:
                looked_at = now
                self._look(now)

    def _look(self, now: float) -> None:
        self._door.look(now)
        with self._lock:
            swarms, members = list(self._swarms.values()), self._door.members
        wanted = frozenset().union(*(member.wants for member in members))
        for one in swarms:
            if not one.fetching and one.tag not in wanted:
                continue
            try:
                one.connect(members, now)
                if one.fetching and not one.finished.is_set():
                    self._look_after(one, members, now)
            except RuntimeError as error:
                # libtorrent's only error: the torrent was removed while we looked.
                _log.debug("%s: %s", one.digest, error)
        self._measure(now)
        with self._lock:
            self._tell_throttle()

    def _steer(self, now: float) -> None:
        with self._lock:
            fetching = any(one.fetching for one in self._swarms.values())
        alerts = self._open.alerts
        counters = alerts.latest
        if fetching and counters:
            alerts.ask()
            waiting = counters["net.limiter_down_queue"] > 0
            self._throttle.steer(counters["net.recv_payload_bytes"], now, waiting=waiting)

    def _measure(self, now: float) -> None:
        """Note what moved, as the counters that were asked for at the last look say, and follow what the link gives."""
        parts = self._open
        counters = parts.alerts.latest
        parts.alerts.ask()
        if not counters:
            return
        received = counters["net.recv_payload_bytes"] + (parts.reader.bytes_read if parts.reader else 0)
        self._receiving.observe(received, now)
        self._sending.observe(counters["net.sent_payload_bytes"], now)
        if self._options.cores is not None and not self._told:
            self._probe.observe(received, now, limit=self._throttle.limits.own_download)
            link = self._probe.link
            speed = NodeSpeed(link=math.inf if link is None else link, hashing=self._hashing, cores=self._options.cores)
            self._throttle.set_own(download=node_limit(speed), upload=node_limit(speed))

    def _look_after(self, one: Swarm, members: tuple[Member, ...], now: float) -> None:
        situation = one.observe(members, now)
        one.save_sometimes(now)
        if now - one.advanced_at > self._options.give_up_seconds:
            cause = f"; the store: {one.store_error}" if one.store_error else ""
            one.fail(
                PeerError(f"{one.digest}: nothing came for {self._options.give_up_seconds:g} s from peers or the store{cause}")
            )
            return
        reader = self._open.reader
        if reader is not None and not one.reading and now >= one.read_again_at and self._due(one, situation):
            one.reading = True
            with self._lock:
                self._tell_throttle()
            self._low.submit(reader.read_on, one)

    def _due(self, one: Swarm, situation: Situation | None) -> list[int]:
        """Pieces that this node is to read from the store now."""
        if situation is None:
            return []
        with self._lock:
            others = [member.name for member in self._door.members if one.tag in member.wants]
        me = self._options.name
        return sharing.pieces_to_read(situation, me=me, nodes=tuple(sorted({me, *others})), patience=self._options.patience)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
