"""A node's part in moving blobs: fetches from peers and, where they do not bring something, from the store; gives what it has."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

import libtorrent

from rayline.errors import BlobCorrupt, PeerError, RaylineError, StoreError
from runtime_env.bundle import hex_of
from runtime_env.durable import write_durably
from runtime_env.peers import sharing, swarm
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.limits import Pace, share_of, split
from runtime_env.peers.members import Member
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.peers.session import apply_limits, filter_of, low_priority_threads, open_session, share_addresses
from runtime_env.peers.sharing import Situation
from runtime_env.peers.swarm import Progress, Swarm
from runtime_env.store import Store

LOOK_SECONDS: Final = 0.25
BAN_SECONDS: Final = 600.0
GIVE_UP_SECONDS: Final = 120.0
STORE_BACK_OFF_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 30.0
_CLOSE_SECONDS: Final = 2.0
_CHUNK: Final = 256 * 2**10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """One node. `host` is the address to listen on and, unless `public_host` differs, the one that members connect to; port 0
    takes any. `origin` is for a node that seeds what is new: it super-seeds. `encrypted` hides contents from who can listen on
    the network, at the cost of processor time; all members must agree on it.
    """

    name: str
    host: str
    port: int = 0
    public_host: str | None = None
    origin: bool = False
    encrypted: bool = False
    patience: sharing.Patience = field(default_factory=sharing.Patience)
    give_up_seconds: float = GIVE_UP_SECONDS


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """Bytes of blobs moved since the start, without protocol; `banned` are the addresses of members that sent wrong pieces."""

    received: int
    sent: int
    from_store: int
    failed: int
    banned: tuple[str, ...]


@dataclass(slots=True)
class _Rates:
    download: int | None = None
    upload: int | None = None
    total: int | None = None
    store: int | None = None
    applied: tuple[int | None, int | None] = field(default=(None, None))


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
        self._session: libtorrent.session | None = None
        self._low = low_priority_threads(3, "rayline-peers")
        self._stop = threading.Event()
        self._pump = threading.Thread(target=self._run, name="rayline-peers-pump", daemon=True)
        self._lock = threading.RLock()
        self._swarms: dict[str, Swarm] = {}
        self._fetches: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._members: tuple[Member, ...] = ()
        self._shared = False
        self._banned: dict[str, float] = {}
        self._filtered: frozenset[str] = frozenset()
        self._rates = _Rates()
        self._pace = Pace()
        self._from_store = 0
        self._counters: dict[str, int] = {}
        self._counted = threading.Condition()

    def __enter__(self) -> PeerNode:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def port(self) -> int:
        return self._open.listen_port()

    def start(self) -> None:
        """Raises PeerError where the address cannot be listened on."""
        host = self._options.host
        self._session = self._low.submit(
            open_session, host=host, port=self._options.port, encrypted=self._options.encrypted
        ).result()
        refused = self._refused_listening()
        if refused is not None:
            self._session = None
            self._low.shutdown()
            raise PeerError(
                f"peers cannot reach this node: {host} port {self._options.port}: {refused}; give another address or port"
            )
        self._cache.before_eviction = self._leave_all
        self._pump.start()

    def close(self) -> None:
        """Remember how far each fetch is, and end. Fetches that still wait raise PeerError."""
        if self._session is None:
            return
        self._stop.set()
        self._pump.join()
        with self._lock:
            waiting = [one for one in self._swarms.values() if one.fetching]
        for one in waiting:
            one.save()
            one.fail(PeerError(f"the node closes; {one.digest} goes on from here at the next start"))
        until = time.monotonic() + _CLOSE_SECONDS
        saved = 0
        while saved < len(waiting) and time.monotonic() < until:
            saved += self._take_alerts(wait_ms=100)
        self._cache.before_eviction = lambda _: None
        self._low.shutdown()
        self._swarms.clear()
        self._session = None

    def set_members(self, members: Iterable[Member]) -> None:
        """Who is alive, where, with what; replaces what was said before. Nobody else can connect; who left is cut off."""
        others = tuple(member for member in members if member.name != self._options.name)
        with self._lock:
            shared = len({member.host for member in others}) < len(others)
            if shared != self._shared:
                self._shared = shared
                share_addresses(self._open, shared)
            self._members = others
            self._apply_filter()
            self._apply_rates()

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
        """This node's own limits, bytes per second, None for none; at once."""
        with self._lock:
            self._rates.download, self._rates.upload = download, upload
            self._apply_rates()

    def set_global_limit(self, total: int | None) -> None:
        """What the network as a whole may carry, bytes per second; a fetching node takes its share of it at once."""
        with self._lock:
            self._rates.total = total
            self._apply_rates()

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
        with self._counted:
            self._counters = {}
            self._open.post_session_stats()
            if not self._counted.wait_for(lambda: bool(self._counters), timeout=_ANSWER_SECONDS):
                raise PeerError("libtorrent does not answer; restart the node's agent")
            counters = self._counters
        return PeerStatistics(
            received=counters["net.recv_payload_bytes"],
            sent=counters["net.sent_payload_bytes"],
            from_store=self._from_store,
            failed=counters["net.recv_failed_bytes"],
            banned=tuple(sorted(self._banned)),
        )

    @property
    def _open(self) -> libtorrent.session:
        if self._session is None:
            raise PeerError("the node is not started, or closed")
        return self._session

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
            self._apply_rates()

    def _is_whole(self, one: Swarm, part: Path) -> bool:
        """Whether the file has the blob's digest, read when it is written; again, as an earlier answer may come late."""
        for _ in range(2):
            self._await(one.flushed, one.flush, "writing the blob")
            if self._low.submit(_sha256_of, part).result() == one.digest:
                return True
        return False

    def _await(self, answered: threading.Event, ask: Callable[[], None], what: str) -> None:
        ask()
        if not answered.wait(_ANSWER_SECONDS):
            raise PeerError(f"{what} took more than {_ANSWER_SECONDS:g} s: look at the disk")

    def _join(self, metainfo: BlobMetainfo, token: bytes, parameters: libtorrent.add_torrent_params, *, fetching: bool) -> Swarm:
        handle = self._open.add_torrent(parameters)
        tag = metainfo.tag(token)
        one = Swarm(metainfo=metainfo, tag=tag, handle=handle, fetching=fetching, now=time.monotonic())
        self._swarms[tag] = one
        self._apply_rates()
        return one

    def _leave(self, one: Swarm) -> None:
        with self._lock:
            if self._swarms.pop(one.tag, None) is not None and self._session is not None:
                self._session.remove_torrent(one.handle)
                self._apply_rates()

    def _leave_all(self, digest: str) -> None:
        """The blob is about to go: nobody gets it from here any more."""
        with self._lock:
            for one in [one for one in self._swarms.values() if one.digest == digest]:
                self._leave(one)

    def _apply_filter(self) -> None:
        hosts = frozenset(member.host for member in self._members) - self._banned.keys()
        if hosts != self._filtered:
            self._filtered = hosts
            self._open.set_ip_filter(filter_of(hosts))

    def _apply_rates(self) -> None:
        fetching = sum(1 for member in self._members if member.wants) + any(one.fetching for one in self._swarms.values())
        rates = self._rates
        download = share_of(rates.total, rates.download, fetching=fetching)
        rates.store = download
        if download is not None and any(one.reading for one in self._swarms.values()):
            download, rates.store = split(download, fetching=fetching)
        wanted = (download, share_of(rates.total, rates.upload, fetching=1))
        if wanted != rates.applied:
            rates.applied = wanted
            apply_limits(self._open, *wanted)

    def _run(self) -> None:
        """The pump: takes alerts as they come, looks at each fetch four times a second."""
        looked_at = float("-inf")
        while not self._stop.is_set():
            self._take_alerts(wait_ms=100)
            now = time.monotonic()
            if now - looked_at >= LOOK_SECONDS:
                looked_at = now
                self._look(now)

    def _look(self, now: float) -> None:
        with self._lock:
            for host in [host for host, until in self._banned.items() if until < now]:
                del self._banned[host]
            self._apply_filter()
            swarms, members = list(self._swarms.values()), self._members
        for one in swarms:
            try:
                one.connect(members, now)
                if one.fetching and not one.finished.is_set():
                    self._look_after(one, members, now)
            except RuntimeError as error:
                # libtorrent's only error: the torrent was removed while we looked.
                _log.debug("%s: %s", one.digest, error)

    def _look_after(self, one: Swarm, members: tuple[Member, ...], now: float) -> None:
        situation = one.observe(members, now)
        one.save_sometimes(now)
        if now - one.advanced_at > self._options.give_up_seconds:
            cause = f"; the store: {one.store_error}" if one.store_error else ""
            one.fail(
                PeerError(f"{one.digest}: nothing came for {self._options.give_up_seconds:g} s from peers or the store{cause}")
            )
            return
        if self._store is None or one.reading or now < one.read_again_at:
            return
        pieces = self._due(one, situation)
        if pieces:
            one.reading = True
            with self._lock:
                self._apply_rates()
            self._low.submit(self._read_on, one, self._store, pieces)

    def _due(self, one: Swarm, situation: Situation | None) -> list[int]:
        """Pieces that this node is to read from the store now."""
        if situation is None:
            return []
        with self._lock:
            others = [member.name for member in self._members if one.tag in member.wants]
        me = self._options.name
        return sharing.pieces_to_read(situation, me=me, nodes=tuple(sorted({me, *others})), patience=self._options.patience)

    def _read_on(self, one: Swarm, store: Store, pieces: list[int]) -> None:
        """Run after run from the store into the torrent, from where peers get them, too; until none is due."""
        try:
            while pieces and not self._stop.is_set():
                self._read(one, store, pieces)
                pieces = self._due(one, one.observe(self._members, time.monotonic()))
        except (StoreError, BlobCorrupt) as error:
            self._put_off(one, error)
        except OSError as error:
            self._put_off(one, StoreError(f"{store.url}: the transfer broke off: {error}"))
        except RuntimeError as error:
            # The torrent was removed meanwhile.
            _log.debug("%s: %s", one.digest, error)
        finally:
            one.reading = False
            with self._lock:
                if self._session is not None:
                    self._apply_rates()

    def _read(self, one: Swarm, store: Store, pieces: list[int]) -> None:
        start = one.metainfo.span(pieces[0])[0]
        end = sum(one.metainfo.span(pieces[-1]))
        with store.open_blob(one.digest, start, end - start) as source:
            for piece in pieces:
                data = self._paced_read(source, one.metainfo.span(piece)[1])
                if self._stop.is_set():
                    return
                if not one.metainfo.fits(piece, data):
                    raise BlobCorrupt(
                        f"{one.digest}: {store.url} holds other bytes than its description says, in piece {piece}; "
                        "look into who wrote to it"
                    )
                one.handle.add_piece(piece, data, 0)
                one.add_from_store(piece, len(data))
                with self._lock:
                    self._from_store += len(data)

    def _put_off(self, one: Swarm, error: RaylineError) -> None:
        one.store_error = error
        one.read_again_at = time.monotonic() + STORE_BACK_OFF_SECONDS
        _log.warning("%s: not from the store for now: %s", one.digest, error)

    def _paced_read(self, source: object, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = source.read(min(_CHUNK, count - len(data)))  # type: ignore[attr-defined]
            if not chunk or self._stop.is_set():
                break
            data += chunk
            with self._lock:
                delay = self._pace.delay_seconds(len(chunk), self._rates.store, time.monotonic())
            self._stop.wait(delay)
        return bytes(data)

    def _take_alerts(self, *, wait_ms: int) -> int:
        """Returns how many resume answers were among them."""
        session = self._open
        session.wait_for_alert(wait_ms)
        answered = 0
        for alert in session.pop_alerts():
            if isinstance(alert, libtorrent.session_stats_alert):
                with self._counted:
                    self._counters = dict(alert.values)
                    self._counted.notify_all()
            elif isinstance(alert, libtorrent.peer_ban_alert):
                self._ban(alert.ip[0])
            elif isinstance(alert, libtorrent.torrent_alert):
                answered += self._take_torrent_alert(alert)
        return answered

    def _take_torrent_alert(self, alert: libtorrent.torrent_alert) -> int:
        with self._lock:
            one = next((one for one in self._swarms.values() if one.handle == alert.handle), None)
        if one is None:
            return 0
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
        return 0

    def _ban(self, host: str) -> None:
        """A member that sent a wrong piece: nothing to and from its address for a while."""
        _log.warning("%s sent a wrong piece and is shut out for %g s", host, BAN_SECONDS)
        with self._lock:
            self._banned[host] = time.monotonic() + BAN_SECONDS
            self._apply_filter()

    def _refused_listening(self) -> str | None:
        """Wait for what listening came to; None when it works."""
        until = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < until:
            self._open.wait_for_alert(100)
            for alert in self._open.pop_alerts():
                if isinstance(alert, libtorrent.listen_succeeded_alert):
                    return None
                if isinstance(alert, libtorrent.listen_failed_alert):
                    return alert.message()
        return "no answer"


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
