"""The PreStop call: HTTP on loopback that answers when the pod is drained, so that the platform waits for just that long."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from workers.notices.base import Notice

HOST: Final = "127.0.0.1"
PORT_FILE: Final = "prestop.port"
MAX_HEAD_BYTES: Final = 8_192
HEAD_SECONDS: Final = 5.0
GOODBYE_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


class PreStopServer:
    """Owns one loopback port and the calls that wait there. Its port stands in the pod's folder, in `prestop.port`.

    `GET` or `POST /prestop` gives the notice and is answered with 200 once the pod is drained or the grace period is over.
    The `Host` must name loopback, and no page of a browser may call: a name that resolves to loopback, or a page that a person on
    this machine looks at, ends nobody's pod.

    Life cycle: `run` listens until cancelled; what waits then and is drained is answered first.
    """

    def __init__(self, *, folder: Path, port: int = 0) -> None:
        """`port` 0 takes any free one."""
        self._folder = folder
        self._port = port
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, give: Callable[[Notice], None], drained: asyncio.Event) -> None:
        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            call = asyncio.create_task(_serve(reader, writer, give, drained), name="prestop call")
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

        server = await asyncio.start_server(begin, HOST, self._port, limit=MAX_HEAD_BYTES)
        port = server.sockets[0].getsockname()[1]
        path = self._folder / PORT_FILE
        path.with_suffix(".new").write_text(f"{port}\n")
        path.with_suffix(".new").replace(path)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        calls = set(self._calls)
        if calls:
            await asyncio.wait(calls, timeout=GOODBYE_SECONDS)
        for call in self._calls:
            call.cancel()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, give: Callable[[Notice], None], drained: asyncio.Event
) -> None:
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        status, words = judge(head)
        if status == 200:
            _log.info("notice by PreStop call")
            give(Notice("prestop"))
            await drained.wait()
        body = json.dumps({"prestop": words}).encode()
        line = f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}\r\n"
        writer.write(f"{line}Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        _log.warning("a PreStop call broke off: %r", error)
    finally:
        writer.close()


def judge(head: bytes) -> tuple[int, str]:
    """Status and words for a request's head: 200 is the notice, everything else refuses."""
    lines = head.decode("latin-1").split("\r\n")
    request = lines[0].split(" ")
    headers = {name.strip().lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines[1:]) if colon}
    if len(request) != 3 or not request[2].startswith("HTTP/1."):
        return 400, "not an HTTP/1 request"
    host, colon, port = headers.get("host", "").rpartition(":")
    name = host if colon and port.isdecimal() else headers.get("host", "")
    if name not in (HOST, "localhost"):
        return 403, "the Host is not loopback"
    if "origin" in headers or "sec-fetch-site" in headers:
        return 403, "not for browsers"
    if request[1] != "/prestop":
        return 404, "there is only /prestop"
    if request[0] not in ("GET", "POST"):
        return 405, "GET or POST"
    return 200, "drained"
