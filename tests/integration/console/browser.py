"""A console over made-up facts in a process of its own, and the system's Chromium to look at it."""

from __future__ import annotations

import ast
import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOKEN = "a-token-of-enough-length"
ROOT = Path(__file__).parents[3]
_START_SECONDS = 90.0


class Site:
    """A running console. Owns its process, which ends with it."""

    def __init__(self, scene: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.console_main", scene, str(self.port), TOKEN],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, word: str) -> list[tuple[str, ...]]:
        """Tell the scene something; what was asked of it so far comes back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return [tuple(one) for one in ast.literal_eval(self.process.stdout.readline())]

    def close(self) -> None:
        self.process.terminate()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait(20)

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the console ended while it started"
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.close()
        raise AssertionError("the console does not listen")


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's own Chromium; the test is skipped, with what to install, where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here: run `apt-get install -y chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()
    # Playwright leaves its own loop behind as the running one: no async test of a later module could run.
    asyncio._set_running_loop(None)
