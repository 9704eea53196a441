"""One process's metrics: gathered each second by its event loop, shown by a small server in a thread of its own.

The server answers even while the event loop is blocked, and says so; a process that is stopped as a whole does not answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Final

import psutil

from rayline.config.process import ProcessIdentity
from rayline.errors import ConfigError
from rayline.logs import lines_logged
from rayline.metrics.board import MetricsBoard
from rayline.metrics.declared import (
    APP,
    CLUSTER,
    CONFIG_UNREADABLE,
    CPU,
    FILES,
    LEVEL,
    LOG_LINES,
    LOOP_BLOCKED,
    MEMORY,
    NODE,
    PROCESS,
    ROLE,
    Sample,
)
from rayline.stalls import Stall, StallKind

if TYPE_CHECKING:
    from rayline.config.watch import ConfigWatch
    from rayline.metrics.export import PrometheusPage

_log = logging.getLogger(__name__)

METRICS_VARIABLE: Final = "RAYLINE_METRICS"
HOST_VARIABLE: Final = "RAYLINE_METRICS_HOST"
PORT_VARIABLE: Final = "RAYLINE_METRICS_PORT"
GATHER_SECONDS: Final = 1.0
# The loop owed a look at itself for so long: blocked.
LOOP_BLOCKED_SECONDS: Final = 3.0
OTLP_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
# One message holds them; metrics have all.
MAX_STALLS_TOLD: Final = 20
_REQUEST_SECONDS: Final = 2.0
_LOOPBACK: Final = "127.0.0.1"
PROMETHEUS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class ProcessMetrics:
    """Owns the board of one process, its rhythm, and its server. Does not own what is counted.

    `exporting` is set once OTLP, where the environment asks for it, is open (or found to be impossible).

    Life: `async with` (binds, begins to gather) → `board` takes sources at any time → the end closes the server. With
    RAYLINE_METRICS=off nothing is gathered and nothing listens.
    """

    def __init__(self, *, identity: ProcessIdentity, environment: Mapping[str, str] | None = None) -> None:
        """Raises ConfigError when the port that the environment names is no port."""
        environment = os.environ if environment is None else environment
        self._environment = environment
        self._on = metrics_wanted(environment)
        self._host = environment.get(HOST_VARIABLE) or _LOOPBACK
        self._port = _port(environment.get(PORT_VARIABLE) or "0")
        self._identity = identity
        self.board = MetricsBoard(now=time.monotonic(), common=_common(identity))
        self.board.source(_ProcessFacts().read)
        self.board.source(lambda _: [Sample(LOOP_BLOCKED, self._blocked_seconds)])
        self._blocked_seconds = 0.0
        self._server: MetricsServer | None = None
        self._task: asyncio.Task[None] | None = None
        self.exporting = asyncio.Event()
        self._end_otlp: Callable[[], None] | None = None
        self._told: set[tuple[StallKind, str]] = set()
        self._watch: ConfigWatch | None = None

    @property
    def address(self) -> str | None:
        """`HOST:PORT` of the server, where it runs."""
        return None if self._server is None else self._server.address

    def tell_by(self, watch: ConfigWatch) -> None:
        """Let the presence of this process tell where its metrics are, and at once what makes no progress."""
        self.board.source(lambda _: [Sample(CONFIG_UNREADABLE, int(watch.status.problem is not None))])
        self._watch = watch
        watch.announce(metrics=self.address)

    async def __aenter__(self) -> ProcessMetrics:
        if self._on:
            self._server = MetricsServer(board=self.board, process=self._identity.process, host=self._host, port=self._port)
            self._server.start()
            self._task = asyncio.create_task(self._gather(), name="metrics")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._end_otlp is not None:
            await asyncio.to_thread(self._end_otlp)
        if self._server is not None:
            await asyncio.to_thread(self._server.close)

    async def _gather(self) -> None:
        wanted = otlp_wanted(self._environment)
        due = time.monotonic()
        while True:
            now = time.monotonic()
            delay_seconds = max(0.0, now - due)
            if delay_seconds > LOOP_BLOCKED_SECONDS:
                _log.error("the event loop of %s stood still for %.1f s", self._identity.process, delay_seconds)
            if delay_seconds > GATHER_SECONDS:
                self._blocked_seconds += delay_seconds
            snapshot = self.board.gather(now, delay_seconds=delay_seconds)
            self._tell(snapshot.stalls)
            if wanted:
                wanted = False
                self._end_otlp = await asyncio.to_thread(_open_otlp, self.board)
                self.exporting.set()
            due = time.monotonic() + GATHER_SECONDS
            await asyncio.sleep(GATHER_SECONDS)

    def _tell(self, stalls: tuple[Stall, ...]) -> None:
        """Log what begins and what ends, and pass on all that holds."""
        now = {stall.key for stall in stalls}
        for stall in stalls:
            if stall.key not in self._told:
                _log.error("no progress: %s", stall.text())
        for kind, subject in sorted(self._told - now):
            _log.warning("progress again: %s (%s)", subject, kind)
        if now != self._told and self._watch is not None:
            self._watch.tell_stalls(stalls[:MAX_STALLS_TOLD])
        self._told = now


class MetricsServer:
    """`/metrics` for Prometheus, `/health` for `rayline status`; one question after the other, each within two seconds.

    Owns a socket and a thread. Life: bound when made → `start` → `close`. A port that is taken is replaced by a free one.
    """

    def __init__(self, *, board: MetricsBoard, process: str, host: str = _LOOPBACK, port: int = 0) -> None:
        self._board = board
        self._process = process
        self._page: PrometheusPage | None = None
        handler = type("Handler", (_Handler,), {"owner": self, "timeout": _REQUEST_SECONDS})
        try:
            self._http = HTTPServer((host, port), handler)
        except OSError as error:
            if not port:
                raise ConfigError(f"metrics cannot be shown at {host}: {error}; correct {HOST_VARIABLE}") from error
            _log.warning("metrics are not shown at port %d (%s), but at a free one", port, error)
            self._http = HTTPServer((host, 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.5,), name="metrics server", daemon=True)

    @property
    def address(self) -> str:
        host, port = self._http.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join(_REQUEST_SECONDS)
        self._http.server_close()
        if self._page is not None:
            self._page.close()

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Content type and body; None for an address that there is not."""
        match path.partition("?")[0]:
            case "/metrics":
                if self._page is None:
                    from rayline.metrics.export import PrometheusPage

                    self._page = PrometheusPage(self._board)
                return PROMETHEUS_TYPE, self._page.text()
            case "/health":
                return "application/json", json.dumps(self.health()).encode()
        return None

    def health(self) -> dict[str, Any]:
        """What makes no progress here; the loop itself is judged now, everything else as it last saw it."""
        snapshot = self._board.snapshot
        age_seconds = time.monotonic() - snapshot.at
        stalls = list(snapshot.stalls[:MAX_STALLS_TOLD])
        if age_seconds > GATHER_SECONDS + LOOP_BLOCKED_SECONDS:
            stalls.insert(0, Stall(StallKind.LOOP, "event loop", age_seconds, "it does not turn"))
        return {
            "process": self._process,
            "pid": os.getpid(),
            "loop_age_seconds": round(age_seconds, 1),
            "stalls": [stall.as_dict() for stall in stalls],
        }


class _Handler(BaseHTTPRequestHandler):
    owner: MetricsServer
    server_version = "rayline"
    sys_version = ""

    def do_GET(self) -> None:
        found = self.owner.answer(self.path)
        if found is None:
            self.send_error(404)
            return
        kind, body = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A question each few seconds is nothing to write down."""


class _ProcessFacts:
    """CPU, memory, files of this process, and the lines that it logged."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def read(self, _: float) -> Iterable[Sample]:
        with self._process.oneshot():
            times = self._process.cpu_times()
            yield Sample(CPU, times.user + times.system)
            yield Sample(MEMORY, self._process.memory_info().rss)
        yield Sample(FILES, self._process.num_fds())
        for level, lines in lines_logged().items():
            yield Sample(LOG_LINES, lines, {LEVEL: level})


def metrics_wanted(environment: Mapping[str, str]) -> bool:
    """Whether anything is to be counted and shown."""
    return environment.get(METRICS_VARIABLE, "on") != "off"


def otlp_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a place for metrics."""
    return any(environment.get(name) for name in OTLP_VARIABLES) and environment.get("OTEL_METRICS_EXPORTER") != "none"


def _open_otlp(board: MetricsBoard) -> Callable[[], None] | None:
    from rayline.metrics.export import start_otlp

    try:
        return start_otlp(board)
    except ConfigError as error:
        _log.error("metrics are not exported: %s", error)
        return None


def _common(identity: ProcessIdentity) -> dict[str, str]:
    found = {APP: identity.app, CLUSTER: identity.cluster, NODE: identity.node}
    return {ROLE: identity.role.value, PROCESS: identity.process, **{name: text for name, text in found.items() if text}}


def _port(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) < 65_536:
        raise ConfigError(f"{PORT_VARIABLE} is {text!r}: give a port, or 0 for a free one")
    return int(text)
