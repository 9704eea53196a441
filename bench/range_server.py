"""A web server for a folder, with ranges, that counts what it sends and can be held to a rate: the origin."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final

from runtime_env.peers.limits import Pace

_CHUNK: Final = 64 * 2**10
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)\Z")


class RangeServer:
    """Owns a listening socket and its threads between `__enter__` and `close`. `rate` (bytes per second, None for none) is for
    all connections together, as a network card has it."""

    def __init__(self, *, folder: Path, host: str = "127.0.0.1", port: int = 0, rate: int | None = None) -> None:
        self.rate = rate
        self.sent_bytes = 0
        self.requests: list[tuple[str, str | None]] = []
        self.stopping = threading.Event()
        self._folder = folder.resolve()
        self._lock = threading.Lock()
        self._pace = Pace()
        self._server = ThreadingHTTPServer((host, port), partial(_Handler, owner=self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> RangeServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://{self._server.server_address[0]!s}:{self._server.server_port}"

    def close(self) -> None:
        """Stop in the middle of whatever is being sent."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def file(self, path: str) -> Path | None:
        found = (self._folder / path.lstrip("/")).resolve()
        return found if found.is_file() and found.is_relative_to(self._folder) else None

    def note(self, path: str, wanted: str | None) -> None:
        with self._lock:
            self.requests.append((path, wanted))

    def sent(self, count: int) -> None:
        """Count, and hold the sender back by as much as the rate asks for."""
        with self._lock:
            self.sent_bytes += count
            delay = self._pace.delay_seconds(count, self.rate, time.monotonic())
        self.stopping.wait(delay)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *arguments: object, owner: RangeServer) -> None:
        self._owner = owner
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""

    def _answer(self, *, body: bool) -> None:
        wanted = self.headers.get("Range")
        self._owner.note(self.path, wanted)
        path = self._owner.file(self.path)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        size = path.stat().st_size
        match = _RANGE.match(wanted or "bytes=0-")
        if match is None:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        start = int(match[1])
        count = (min(int(match[2]) + 1, size) if match[2] else size) - start
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        self.send_header("Content-Length", str(count))
        self.end_headers()
        if body:
            self._send(path, start, count)

    def _send(self, path: Path, start: int, count: int) -> None:
        with path.open("rb") as file:
            file.seek(start)
            while count and not self._owner.stopping.is_set():
                data = file.read(min(_CHUNK, count))
                try:
                    self.wfile.write(data)
                except ConnectionError:
                    return
                count -= len(data)
                self._owner.sent(len(data))
