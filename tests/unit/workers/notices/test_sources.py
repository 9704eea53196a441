"""Each way in which a notice comes, and what must not be taken for one."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rayline.errors import ConfigError
from workers.notices import (
    InterruptionEndpoint,
    InterruptionFile,
    Notice,
    NoticeSource,
    OperatorOrder,
    PreStopServer,
    SignalSource,
)
from workers.notices.interruption_endpoint import read_interruption
from workers.notices.prestop import PORT_FILE, judge


class Watched:
    """A source that runs, the notices it gave, and the event that says that the pod is drained."""

    def __init__(self) -> None:
        self.notices: asyncio.Queue[Notice] = asyncio.Queue()
        self.drained = asyncio.Event()

    async def notice(self) -> Notice:
        async with asyncio.timeout(10):
            return await self.notices.get()


@asynccontextmanager
async def watching(source: NoticeSource) -> AsyncIterator[Watched]:
    watched = Watched()
    task = asyncio.create_task(source.run(watched.notices.put_nowait, watched.drained))
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def test_a_signal_is_a_notice_each_time() -> None:
    async with watching(SignalSource((signal.SIGUSR1,))) as watched:
        await asyncio.sleep(0)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await watched.notice() == Notice("SIGUSR1")


async def test_a_file_that_appears_is_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "going"
    async with watching(InterruptionFile(path, poll_seconds=0.01)) as watched:
        path.touch()
        assert str(path) in (await watched.notice()).reason


async def test_an_order_for_an_earlier_pod_of_the_same_name_is_no_notice() -> None:
    order = OperatorOrder()
    order.set(True)
    order.begin()
    order.set(False)
    assert not order.ordered
    async with watching(order) as watched:
        order.set(True)
        assert await watched.notice() == Notice("rayline drain")
        order.set(False)
    assert order.ordered


class Metadata(ThreadingHTTPServer):
    """A cloud's metadata service: what it answers, and what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answer: tuple[int, str] = (404, "")
        self.asked: list[tuple[str, str | None]] = []
        self.asked_again = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def wait_asked(self, times: int) -> None:
        with self.asked_again:
            assert self.asked_again.wait_for(lambda: len(self.asked) >= times, timeout=10)


class _Answer(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        status, body = self.server.answer
        with self.server.asked_again:
            self.server.asked.append((self.path, self.headers.get("Metadata-Flavor")))
            self.server.asked_again.notify_all()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "quiet", [(404, ""), (500, "2030-01-01T00:00:00Z"), (302, ""), (200, "FALSE"), (200, ""), (200, "soon"), (200, '{"time": 5}')]
)
async def test_what_is_not_a_time_is_no_notice_and_the_next_answer_may_be_one(metadata: Metadata, quiet: tuple[int, str]) -> None:
    metadata.answer = quiet
    source = InterruptionEndpoint(f"{metadata.url}/spot?x=1", headers={"Metadata-Flavor": "Google"}, poll_seconds=0.01)
    async with watching(source) as watched:
        await asyncio.to_thread(metadata.wait_asked, 2)
        assert watched.notices.empty()
        metadata.answer = (200, '{"action": "terminate", "time": "2999-01-01T00:00:00Z"}')
        notice = await watched.notice()
    assert "2999-01-01" in notice.reason
    assert (notice.grace_seconds or 0) > 1e6
    assert set(metadata.asked) == {("/spot?x=1", "Google")}


async def test_a_service_that_is_away_is_no_notice(metadata: Metadata) -> None:
    url = metadata.url
    metadata.answer = (200, "TRUE")
    metadata.socket.close()
    source = InterruptionEndpoint(url, poll_seconds=0.01)
    assert await asyncio.to_thread(source._ask) is None


@pytest.mark.parametrize("url", ["file:///etc/passwd", "169.254.169.254/spot", "", "ftp://host/x"])
def test_only_an_http_url_is_an_endpoint(url: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        InterruptionEndpoint(url)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("2024-05-01T12:02:00Z", 120.0),
        ('{"action": "stop", "time": "2024-05-01T12:00:30"}', 30.0),
        ("2024-05-01T11:00:00Z", 0.0),
        ("TRUE\n", None),
    ],
)
def test_the_time_that_is_left_is_read_in_every_form(body: str, left: float | None) -> None:
    notice = read_interruption(body, now=datetime(2024, 5, 1, 12, tzinfo=UTC))
    assert notice is not None
    assert notice.grace_seconds == left


async def call(folder: Path, request: str) -> str:
    async with asyncio.timeout(10):
        path = folder / PORT_FILE
        while not path.exists():  # noqa: ASYNC110 - the file is what a hook's script waits for, too
            await asyncio.sleep(0.01)
        port = int(path.read_text())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.replace("PORT", str(port)).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.decode()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_prestop_call_is_answered_when_the_pod_is_drained(tmp_path: Path, method: str) -> None:
    async with watching(PreStopServer(folder=tmp_path)) as watched:
        calling = asyncio.create_task(call(tmp_path, f"{method} /prestop HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n"))
        assert await watched.notice() == Notice("prestop")
        assert not calling.done()
        watched.drained.set()
        assert (await calling).startswith("HTTP/1.1 200 OK")


async def test_a_prestop_call_that_waits_is_answered_although_the_pod_ends_at_once(tmp_path: Path) -> None:
    async with watching(PreStopServer(folder=tmp_path)) as watched:
        calling = asyncio.create_task(call(tmp_path, "GET /prestop HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n"))
        await watched.notice()
        watched.drained.set()
    assert (await calling).startswith("HTTP/1.1 200 OK")


async def test_a_call_under_a_foreign_name_is_refused_and_no_notice(tmp_path: Path) -> None:
    async with watching(PreStopServer(folder=tmp_path)) as watched:
        answer = await call(tmp_path, "GET /prestop HTTP/1.1\r\nHost: evil.example:PORT\r\n\r\n")
        assert answer.startswith("HTTP/1.1 403 ")
        assert watched.notices.empty()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /prestop HTTP/1.1\r\nHost: 127.0.0.1:80", 200),
        ("POST /prestop HTTP/1.0\r\nhost: LOCALHOST", 403),
        ("POST /prestop HTTP/1.0\r\nhost: localhost", 200),
        ("GET /prestop HTTP/1.1", 403),
        ("GET /prestop HTTP/1.1\r\nHost: 10.0.0.1", 403),
        ("GET /prestop HTTP/1.1\r\nHost: 127.0.0.1.evil.example", 403),
        ("GET /prestop HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost", 403),
        ("GET /prestop HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none", 403),
        ("GET / HTTP/1.1\r\nHost: localhost", 404),
        ("DELETE /prestop HTTP/1.1\r\nHost: localhost", 405),
        ("GET /prestop", 400),
        ("\x16\x03\x01", 400),
    ],
)
def test_only_a_prestop_call_on_loopback_is_a_notice(head: str, status: int) -> None:
    assert judge(f"{head}\r\n\r\n".encode())[0] == status
