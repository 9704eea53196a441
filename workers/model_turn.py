"""The models of one app on one node, as its agent and its actors share them: a folder in the pod's own.

placed.json     which generations are in place, and where (the agent writes; `rayline.models.NodeModels`)
turn            the generation in force on this node, 8 bytes that all actors map; it only grows
actor-<pid>     the newest generation that this actor could serve, plus 1 (0: it still loads); locked by it, so that the
                kernel tells of its end
.lock           held by who looks at several of these at once
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rayline.errors import FormatError
from rayline.file_locks import exclusively
from rayline.models import NodeModels

FOLDER = "models"
_PLACED = "placed.json"
_TURN = "turn"
_TURN_BYTES = 8


def models_folder(pod_dir: Path, app: str) -> Path:
    """Where the agent and the actors of an app meet."""
    return pod_dir / FOLDER / app


def write_placed(folder: Path, models: NodeModels) -> None:
    """Tell the actors; by one rename, so that they read all of it or what was there before."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{_PLACED}.new"
    new.write_bytes(models.encode())
    new.replace(folder / _PLACED)


def read_turn(folder: Path) -> int:
    """The generation in force, as another process than an actor sees it; 0 where no actor was yet."""
    try:
        return int.from_bytes((folder / _TURN).read_bytes(), sys.byteorder)
    except FileNotFoundError:
        return 0


class ModelTurn:
    """One actor's part in its node's turn. Owns its entry and its map of the turn. Does not own what it serves.

    Life cycle: construction makes it known with nothing prepared, so that the turn waits for it; `prepared` each time that a
    generation could be served here; the kernel withdraws it when its process ends, `close` before that.
    """

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder
        self._lock = folder / ".lock"
        folder.mkdir(parents=True, exist_ok=True)
        self._entry = folder / f"actor-{os.getpid()}-{id(self):x}"
        with exclusively(self._lock):
            self._handle = os.open(self._entry, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            path = folder / _TURN
            if not path.exists():
                path.write_bytes(bytes(_TURN_BYTES))
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), _TURN_BYTES)
        # A native item: one load or store of eight bytes.
        self.turn = memoryview(self._map).cast("Q")
        self._placed: tuple[tuple[int, int], NodeModels] | None = None

    def close(self) -> None:
        """Leave: the turn no longer waits for this actor."""
        self._entry.unlink(missing_ok=True)
        os.close(self._handle)
        self.turn.release()
        self._map.close()

    def placed(self) -> NodeModels:
        """What the agent says is in place; nothing where it never said a word. Raises FormatError."""
        path = self._folder / _PLACED
        try:
            status = path.stat()
            facts = (status.st_ino, status.st_mtime_ns)
            if self._placed is None or self._placed[0] != facts:
                self._placed = (facts, NodeModels.decode(path.read_bytes()))
        except FileNotFoundError:
            return NodeModels(0)
        except OSError as error:
            raise FormatError(f"{path} cannot be read: {error}") from error
        return self._placed[1]

    def prepared(self, generation: int, hold: Callable[[], object] = lambda: None) -> None:
        """This actor could serve `generation` from now on, once `hold` returned; the turn does not move on meanwhile."""
        with exclusively(self._lock):
            hold()
            os.pwrite(self._handle, (generation + 1).to_bytes(_TURN_BYTES, sys.byteorder), 0)

    def is_served(self) -> bool:
        """Whether another actor of the app here has loaded, so that `turn` says what it serves."""
        with exclusively(self._lock):
            return any(prepared >= 0 for prepared in self._others())

    def advance_together(self, generation: int) -> bool:
        """Move the turn on if `generation` is the newest that every living actor of the app here could serve; True when the turn
        is there, or beyond. (Who has a newer one may have skipped this one.)"""
        if self.turn[0] >= generation:
            return True
        with exclusively(self._lock):
            if all(prepared == generation for prepared in self._others()):
                self._raise_turn(generation)
        return bool(self.turn[0] >= generation)

    def advance(self, generation: int) -> None:
        """Move the turn on without asking: whoever is older takes no call any more."""
        with exclusively(self._lock):
            self._raise_turn(generation)

    def _raise_turn(self, generation: int) -> None:
        if generation > self.turn[0]:
            self.turn[0] = generation

    def _others(self) -> list[int]:
        """What the other living actors have prepared, -1 for one that loads; entries of dead ones are removed."""
        found = []
        for path in self._folder.glob("actor-*"):
            if path == self._entry:
                continue
            try:
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                found.append(int.from_bytes(os.pread(handle, _TURN_BYTES, 0), sys.byteorder) - 1)
            finally:
                os.close(handle)
        return found
