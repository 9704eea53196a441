"""One blob among its peers: the torrent on this machine, how far it is, and since when nobody brought anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libtorrent

from rayline.errors import RaylineError
from runtime_env.bundle import hex_of
from runtime_env.peers.members import Member
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.peers.sharing import Situation

# Not queued and not paused by libtorrent itself; peers and trackers come from nowhere but us.
_FLAGS: Final = (
    libtorrent.torrent_flags.apply_ip_filter
    | libtorrent.torrent_flags.disable_dht
    | libtorrent.torrent_flags.disable_lsd
    | libtorrent.torrent_flags.disable_pex
    | libtorrent.torrent_flags.duplicate_is_error
)
MAX_CONNECTIONS: Final = 40
_RECONNECT_SECONDS: Final = 1.0
_RESUME_SECONDS: Final = 2.0

Progress = Callable[["FetchProgress"], None]


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far one fetch is; bytes. `from_store` is what had to be read from the store because no peer brought it."""

    digest: str
    done: int
    total: int
    from_store: int
    peers: int


class Swarm:
    """Owns one torrent of the session, and what is known of its progress. Does not own the file, nor the session.

    Life cycle: `joined` as a fetcher or with the whole blob; a fetcher is `finished` when each piece is here, becomes a giver by
    `now_whole`; `leave` ends it. All but the events are touched by the node's own thread.
    """

    def __init__(
        self, *, metainfo: BlobMetainfo, tag: str, handle: libtorrent.torrent_handle, fetching: bool, now: float
    ) -> None:
        self.metainfo = metainfo
        self.tag = tag
        self.handle = handle
        self.fetching = fetching
        self.finished = threading.Event()
        self.flushed = threading.Event()
        self.moved = threading.Event()
        self.error: RaylineError | None = None
        self.store_error: RaylineError | None = None
        self.from_store = 0
        self.reading = False
        self.read_again_at = now
        self.progress: Progress | None = None
        self.advanced_at = now
        self._joined_at = now
        self._lock = threading.Lock()
        self._given: set[int] = set()
        self._flushes = 0
        self._saving = False
        self._done = 0
        self._from_peers = 0
        self._brought_at = now
        self._source_at = now
        self._tried_at: dict[tuple[str, int], float] = {}
        self._saved_at = now

    @property
    def digest(self) -> str:
        return self.metainfo.digest

    def fail(self, error: RaylineError) -> None:
        """Whoever waits for this fetch is told."""
        self.error = error
        self.finished.set()

    def now_whole(self) -> None:
        self.fetching = False
        self.progress = None

    def connect(self, members: Iterable[Member], now: float) -> None:
        """To all who may want or give pieces. Both sides do, so that one of two behind translated networks gets through."""
        useful = {
            (member.host, member.port)
            for member in members
            if self.tag in member.wants or (self.fetching and self.tag in member.holds)
        }
        self._tried_at = {address: at for address, at in self._tried_at.items() if address in useful}
        due = [address for address in useful if now - self._tried_at.get(address, float("-inf")) >= _RECONNECT_SECONDS]
        if due:
            connected = {peer.ip for peer in self.handle.get_peer_info()}
            for address in due[: max(0, MAX_CONNECTIONS - len(connected))]:
                self._tried_at[address] = now
                if address not in connected:
                    self.handle.connect_peer(address)

    def add_from_store(self, piece: int, count: int) -> None:
        """A piece went to libtorrent, which takes a moment to call it here."""
        self._given.add(piece)
        self.from_store += count

    def observe(self, members: Iterable[Member], now: float) -> Situation | None:
        """Look at the torrent once; tells whoever waits. None while what is on disk is looked through."""
        with self._lock:
            return self._observe(members, now)

    def _observe(self, members: Iterable[Member], now: float) -> Situation | None:
        status = self.handle.status()
        peers = [peer for peer in self.handle.get_peer_info() if not peer.flags & (peer.connecting | peer.handshake)]
        holders = {member.host for member in members if self.tag in member.holds}
        sources = sum(1 for peer in peers if peer.ip[0] in holders)
        if sources:
            self._source_at = now
        if status.total_payload_download > self._from_peers:
            self._from_peers = status.total_payload_download
            self._brought_at = now
        if status.total_done > self._done:
            self._done = status.total_done
            self.advanced_at = now
        if self.progress is not None:
            self.progress(FetchProgress(self.digest, status.total_done, self.metainfo.size_bytes, self.from_store, len(peers)))
        if status.is_seeding:
            self.finished.set()
        if status.state in (status.states.checking_files, status.states.checking_resume_data):
            return None
        return Situation(
            here=[here or piece in self._given for piece, here in enumerate(status.pieces)],
            availability=self.handle.piece_availability() or [0] * self.metainfo.pieces,
            holders=len(holders),
            sources=sources,
            joined_seconds=now - self._joined_at,
            quiet_seconds=now - self._brought_at,
            sourceless_seconds=now - self._source_at,
        )

    def save_sometimes(self, now: float) -> None:
        """Ask for what a later process needs to go on from here; the answer is an alert."""
        if now - self._saved_at >= _RESUME_SECONDS:
            self._saved_at = now
            self.save()

    def save(self) -> None:
        """First what libtorrent holds back has to be written: only what is on disk counts as here."""
        self._saving = True
        self.flush()

    def flush(self) -> None:
        """Ask for everything to be written; `flushed` is set when all that was asked for is."""
        with self._lock:
            self.flushed.clear()
            self._flushes += 1
            self.handle.flush_cache()

    def written(self) -> None:
        """One `flush` was answered; libtorrent also tells when it wrote everything on its own at the end."""
        with self._lock:
            self._flushes = max(0, self._flushes - 1)
            if self._flushes == 0:
                self.flushed.set()
        if self._saving:
            self._saving = False
            self.handle.save_resume_data()


def giving(metainfo: BlobMetainfo, token: bytes, folder: Path, *, super_seeding: bool) -> libtorrent.add_torrent_params:
    """The torrent of a blob that lies whole in `folder`; each piece is checked once when it is first asked for."""
    parameters = _parameters(metainfo, token, folder)
    parameters.flags = _FLAGS | libtorrent.torrent_flags.seed_mode
    if super_seeding:
        parameters.flags |= libtorrent.torrent_flags.super_seeding
    return parameters


def fetching(metainfo: BlobMetainfo, token: bytes, folder: Path, resume: bytes | None) -> libtorrent.add_torrent_params:
    """The torrent of a blob that is to come into `folder`, going on from `resume` where that is of this torrent."""
    parameters = _parameters(metainfo, token, folder)
    if resume is not None and (folder / hex_of(metainfo.digest)).exists():
        earlier = _resumed(resume)
        if earlier is not None and earlier.info_hashes == parameters.info_hashes:
            earlier.ti = parameters.ti
            earlier.save_path = parameters.save_path
            earlier.peers = []
            parameters = earlier
    parameters.flags = _FLAGS
    return parameters


def _parameters(metainfo: BlobMetainfo, token: bytes, folder: Path) -> libtorrent.add_torrent_params:
    parameters = libtorrent.load_torrent_buffer(metainfo.torrent(token))
    parameters.save_path = str(folder)
    parameters.storage_mode = libtorrent.storage_mode_t.storage_mode_sparse
    parameters.max_connections = MAX_CONNECTIONS
    return parameters


def _resumed(data: bytes) -> libtorrent.add_torrent_params | None:
    """A resume file that is damaged costs a check of what is on disk, no more."""
    try:
        return libtorrent.read_resume_data(data)
    except RuntimeError:
        return None
