"""A file that appears when the machine will be taken away, as a cloud's own agent or an operator's script makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from workers.notices.base import Notice

POLL_SECONDS: Final = 0.25


class InterruptionFile:
    """Watches one path. What the file holds does not matter; whether it is there does."""

    def __init__(self, path: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._path = path
        self._poll_seconds = poll_seconds

    async def run(self, give: Callable[[Notice], None], drained: asyncio.Event) -> None:  # noqa: ARG002 - a file has no answer
        while True:
            if self._path.exists():
                give(Notice(f"interruption file {self._path}"))
                return
            await asyncio.sleep(self._poll_seconds)
