"""What a node reads from the store while it fetches: run after run of pieces, no faster than they are written."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Final

from rayline.errors import BlobCorrupt, RaylineError, StoreError
from runtime_env.peers.swarm import Swarm
from runtime_env.peers.throttle import Throttle
from runtime_env.store import Store

STORE_BACK_OFF_SECONDS: Final = 2.0
# libtorrent takes every piece it is given at once: what waits there for the disk is memory of this process.
MAX_UNWRITTEN_BYTES: Final = 8 * 2**20
_WRITTEN_LOOK_SECONDS: Final = 0.05
_LIMIT_LOOK_SECONDS: Final = 0.5
_CHUNK: Final = 256 * 2**10

_log = logging.getLogger(__name__)


class StoreReader:
    """Owns the transfers from the store into torrents. Does not own the choice of pieces (`due`), nor the threads it runs in.

    Life cycle: `read_on` in a thread for each swarm whose `reading` the caller has set; it ends, and clears that, when nothing is
    due, the store fails, or `stop` is set. `bytes_read` counts what came, as it comes: a rate by whole pieces would jump.
    """

    def __init__(
        self,
        *,
        store: Store,
        throttle: Throttle,
        due: Callable[[Swarm], list[int]],
        unwritten_bytes: Callable[[], int],
        stop: threading.Event,
    ) -> None:
        """`due` names adjoining pieces to read next, none to end; `unwritten_bytes` is what waits for the disk in libtorrent."""
        self._store = store
        self._throttle = throttle
        self._due = due
        self._unwritten_bytes = unwritten_bytes
        self._stop = stop
        self._lock = threading.Lock()
        self.bytes_read = 0

    def read_on(self, one: Swarm) -> None:
        """Until nothing is due. What the store does wrong is noted on the swarm, which is not read again for a while."""
        try:
            while not self._stop.is_set() and (pieces := self._due(one)):
                self._read(one, pieces)
        except (StoreError, BlobCorrupt) as error:
            self._put_off(one, error)
        except OSError as error:
            self._put_off(one, StoreError(f"{self._store.url}: the transfer broke off: {error}"))
        except RuntimeError as error:
            # The torrent was removed meanwhile.
            _log.debug("%s: %s", one.digest, error)
        finally:
            one.reading = False

    def _read(self, one: Swarm, pieces: list[int]) -> None:
        start = one.metainfo.span(pieces[0])[0]
        end = sum(one.metainfo.span(pieces[-1]))
        with self._store.open_blob(one.digest, start, end - start) as source:
            for piece in pieces:
                data = self._paced_read(source, one.metainfo.span(piece)[1])
                if self._stop.is_set():
                    return
                if not one.metainfo.fits(piece, data):
                    raise BlobCorrupt(
                        f"{one.digest}: {self._store.url} holds other bytes than its description says, in piece {piece}; "
                        "look into who wrote to it"
                    )
                one.handle.add_piece(piece, data, 0)
                one.add_from_store(piece, len(data))
                self._await_the_disk()

    def _paced_read(self, source: BinaryIO, count: int) -> bytes:
        chunks: list[bytes] = []
        while count and not self._stop.is_set():
            chunk = source.read(min(_CHUNK, count))
            if not chunk:
                break
            chunks.append(chunk)
            count -= len(chunk)
            with self._lock:
                self.bytes_read += len(chunk)
            wait_seconds = self._throttle.wait_seconds(len(chunk))
            # In short steps: a limit that is raised or lifted meanwhile holds for this chunk, too.
            while wait_seconds > 0 and not self._stop.wait(min(wait_seconds, _LIMIT_LOOK_SECONDS)):
                wait_seconds = self._throttle.wait_seconds(0)
        return b"".join(chunks)

    def _await_the_disk(self) -> None:
        while not self._stop.is_set() and self._unwritten_bytes() > MAX_UNWRITTEN_BYTES:
            self._stop.wait(_WRITTEN_LOOK_SECONDS)

    def _put_off(self, one: Swarm, error: RaylineError) -> None:
        one.store_error = error
        one.read_again_at = time.monotonic() + STORE_BACK_OFF_SECONDS
        _log.warning("%s: not from the store for now: %s", one.digest, error)
