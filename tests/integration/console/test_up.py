"""The console as one of the platform's own processes, against a real broker."""

from __future__ import annotations

import asyncio
import http.client
import signal
from pathlib import Path

import pytest

from deploy.local.launch import ProcessLauncher
from deploy.local.services import start_console
from deploy.local.state import StateFolder
from deploy.local.supervision import Role
from deploy.local.supervisor import Supervisor
from rayline.bus import KafkaSettings, ensure_topics
from rayline.topics import platform_topics

pytestmark = pytest.mark.integration

_PATIENCE_SECONDS = 60.0


async def _answers(address: str) -> int:
    """The status of the overview, once anything listens there."""

    def ask() -> int:
        connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        finally:
            connection.close()

    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            try:
                return await asyncio.to_thread(ask)
            except OSError:
                await asyncio.sleep(0.2)


async def test_a_console_that_was_killed_is_back_at_its_address(kafka: KafkaSettings, tmp_path: Path) -> None:
    await ensure_topics(kafka, platform_topics())
    launcher = ProcessLauncher(folder=StateFolder(tmp_path), run_id="test", channel_token="test")
    launcher.kafka = kafka
    launcher.folder.logs.mkdir(parents=True)
    crashed: list[BaseException] = []
    changed = asyncio.Event()
    supervisor = Supervisor(on_change=changed.set, on_event=lambda _: None, on_crash=crashed.append)
    try:
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = taken.sockets[0].getsockname()[1]
        address = await start_console(supervisor, launcher, port=port)
        assert str(port) not in address
        taken.close()
        await taken.wait_closed()
        assert await _answers(address) == 200
        first = supervisor.child("console").record.pid
        supervisor.child("console").signal(signal.SIGKILL)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not any(record.pid != first for record in supervisor.records()):
                changed.clear()
                await changed.wait()
        assert await _answers(address) == 200
    finally:
        supervisor.begin_closing()
        await supervisor.stop_role(Role.CONSOLE)
        await supervisor.close()
    assert not crashed
    assert "Traceback" not in (tmp_path / "logs" / "console.log").read_text()
