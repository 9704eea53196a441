"""Asks the platform's processes within reach whether they get on; what their answers mean is judged in `deploy.progress`."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.config_board import LastWord
from deploy.progress import MEMORY_SECONDS, NoProgress, Silence, process_stalls
from rayline.stalls import Stall

ANSWER_SECONDS: Final = 1.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
_LOOPBACK: Final = ("127.", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """`stalls` is what makes no progress there; empty: all goes on."""

    process: str
    address: str | None
    stalls: Sequence[NoProgress] = ()


async def read_health(
    words: Mapping[str, LastWord], *, ask: Callable[[str], Awaitable[dict[str, Any] | Silence]] | None = None
) -> list[ProcessHealth]:
    """Ask each process that can be reached from here, all at once; at most about a second."""
    ask = ask_process if ask is None else ask
    host = socket.gethostname()

    async def one(word: LastWord) -> ProcessHealth | None:
        address = word.presence.metrics
        reachable = address is not None and (word.presence.host == host or not address.startswith(_LOOPBACK))
        said = await ask(address) if reachable and address is not None else Silence.OUT_OF_REACH
        process = word.presence.identity.process
        stalls = process_stalls(word, _stalls_of(process, said), now_ms=round(time.time() * 1000))
        return None if stalls is None else ProcessHealth(process, address, stalls)

    found = await asyncio.gather(*(one(word) for word in words.values() if word.silent_seconds < MEMORY_SECONDS))
    return [health for health in found if health is not None]


def _stalls_of(process: str, said: dict[str, Any] | Silence) -> Sequence[Stall] | Silence:
    if isinstance(said, Silence):
        return said
    try:
        # Another name: its port is another's now.
        return [Stall.from_dict(stall) for stall in said.get("stalls", ())] if said.get("process") == process else Silence.GONE
    except (ValueError, KeyError, TypeError):
        return Silence.GONE


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
                raw = b""
                while len(raw) < _MAX_ANSWER_BYTES and (more := await reader.read(_MAX_ANSWER_BYTES)):
                    raw += more
                head, _, body = raw.partition(b"\r\n\r\n")
                found = json.loads(body)
                return found if isinstance(found, dict) and b" 200 " in head else Silence.GONE
            finally:
                writer.close()
    except TimeoutError:
        return Silence.FROZEN if connected else Silence.OUT_OF_REACH
    except (OSError, ValueError):
        return Silence.GONE
