"""How a pod's agent drains one of its actors: an order and two answers over a Unix socket that lies beside the actor's entry.

    agent → actor   b"<seconds>", in which what still runs is handed back
    actor → agent   b"draining" once it takes no more batches, b"idle" once every batch is answered

Not over the actor's Flight port: without Arrow an agent takes a third less memory, and nobody but the pod's own user gets here.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from pathlib import Path
from typing import Protocol

DRAIN_SUFFIX = ".drain"
DRAINING = b"draining"
IDLE = b"idle"
IDLE_POLL_SECONDS = 0.02
MAX_WORD_BYTES = 64
WAITING_ORDERS = 8


class Drains(Protocol):
    """What an order is for: an actor's server."""

    def drain(self, hand_back_seconds: float) -> None:
        """Take no more batches; returns at once."""

    def owes_answers(self) -> bool:
        """Whether a lane waits for an answer."""


class DrainPort:
    """Owns the socket and its threads; does not own the server. Listens from construction until the process ends."""

    def __init__(self, *, entry: Path, server: Drains) -> None:
        """`entry` is the path of the actor's entry without its suffix. Raises OSError where no socket can be made there."""
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = entry.with_suffix(DRAIN_SUFFIX)
        # Of a process that had this number before.
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(WAITING_ORDERS)
        threading.Thread(target=self._listen, name="rayline-drain", daemon=True).start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            # A thread for each: a second order, with less time, must not wait for the end of the first.
            threading.Thread(target=self._obey, args=[connection], name="rayline-drain", daemon=True).start()

    def _obey(self, connection: socket.socket) -> None:
        # An agent that left is the one that does not want to know.
        with connection, contextlib.suppress(ConnectionError):
            seconds = read_order(connection.recv(MAX_WORD_BYTES))
            if seconds is None:
                return
            self._server.drain(seconds)
            connection.send(DRAINING)
            never = threading.Event()
            while self._server.owes_answers():
                never.wait(IDLE_POLL_SECONDS)
            connection.send(IDLE)


def read_order(word: bytes) -> float | None:
    """The seconds of an order; None for what is none."""
    try:
        seconds = float(word)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def give_order(path: Path, hand_back_seconds: float, connection: socket.socket) -> bool:
    """Tell the actor whose socket this is; True once it takes no more batches. Raises OSError where it is away or silent."""
    connection.connect(str(path))
    connection.send(b"%.3f" % hand_back_seconds)
    return connection.recv(MAX_WORD_BYTES) == DRAINING
