"""Whether the platform's processes get on: what each says of itself, and what its silence says."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from deploy.config_board import LastWord
from rayline.config import Role

ANSWER_SECONDS: Final = 1.0
# What has been silent for longer is no news any more.
MEMORY_SECONDS: Final = 600.0
_MISSED: Final = 2.5
_MAX_ANSWER_BYTES: Final = 64 * 1024
_LOOPBACK: Final = ("127.", "localhost", "::1")


class Silence(Enum):
    """What came instead of an answer. FROZEN: the connection was taken, and nothing said; GONE: nobody listens there;
    OUT_OF_REACH: it cannot be asked from here."""

    FROZEN = auto()
    GONE = auto()
    OUT_OF_REACH = auto()


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """`stalls` says what makes no progress there, as sentences; empty: all goes on."""

    process: str
    address: str | None
    stalls: tuple[str, ...] = ()


async def read_health(
    words: Mapping[str, LastWord], *, ask: Callable[[str], Awaitable[dict[str, Any] | Silence]] | None = None
) -> list[ProcessHealth]:
    """Ask each process that can be reached from here, all at once; at most about a second."""
    ask = ask_process if ask is None else ask
    host = socket.gethostname()

    async def one(word: LastWord) -> ProcessHealth | None:
        address = word.presence.metrics
        reachable = address is not None and (word.presence.host == host or not address.startswith(_LOOPBACK))
        answer = await ask(address) if reachable and address is not None else Silence.OUT_OF_REACH
        return judge(word, answer)

    found = await asyncio.gather(*(one(word) for word in words.values() if word.silent_seconds < MEMORY_SECONDS))
    return [health for health in found if health is not None]


def judge(word: LastWord, answer: dict[str, Any] | Silence) -> ProcessHealth | None:
    """What its last word and its answer say of a process; None for one that is gone."""
    presence, process = word.presence, word.presence.identity.process
    overdue = word.silent_seconds > _MISSED * presence.refresh_seconds
    if isinstance(answer, dict) and answer.get("process") != process:
        # Its port is another's now.
        answer = Silence.GONE
    if isinstance(answer, dict):
        stalls = tuple(str(stall) for stall in answer.get("stalls", ()))
        if overdue and not stalls:
            stalls = (f"it has not reached Kafka for {word.silent_seconds:.0f} s",)
        return ProcessHealth(process, presence.metrics, stalls)
    if answer is Silence.FROZEN:
        why = "it is frozen: it takes connections and says nothing; see whether it is stopped (SIGSTOP) or starved, or end it"
        return ProcessHealth(process, presence.metrics, (why,))
    # The silence of pods is judged by their nodes' beats.
    if answer is Silence.GONE or (overdue and presence.identity.role is Role.AGENT):
        return None
    if overdue:
        why = f"it has not been heard for {word.silent_seconds:.0f} s: frozen, cut off, or killed"
        return ProcessHealth(process, presence.metrics, (why,))
    return ProcessHealth(process, presence.metrics, presence.stalls)


async def ask_process(address: str) -> dict[str, Any] | Silence:
    """What the process at HOST:PORT says of itself, within a second."""
    host, _, port = address.rpartition(":")
    connected = False
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            connected = True
            try:
                writer.write(f"GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
                await writer.drain()
                head, _, body = (await reader.read(_MAX_ANSWER_BYTES)).partition(b"\r\n\r\n")
                while not body.endswith(b"}") and (more := await reader.read(_MAX_ANSWER_BYTES)):
                    body += more
                found = json.loads(body)
                return found if isinstance(found, dict) and b" 200 " in head else Silence.GONE
            finally:
                writer.close()
    except TimeoutError:
        return Silence.FROZEN if connected else Silence.OUT_OF_REACH
    except (OSError, ValueError):
        return Silence.GONE
