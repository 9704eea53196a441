"""The config topics as lists of records, in the place of a broker's."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from rayline.bus import LogRecord
from rayline.config import Answer, Presence
from rayline.topics import CONFIG, CONFIG_APPLIED, CONFIG_HISTORY


class Topics:
    """What stands in each topic, and what is written once a reader has caught up."""

    def __init__(self) -> None:
        self.records: dict[str, list[LogRecord]] = {CONFIG: [], CONFIG_APPLIED: [], CONFIG_HISTORY: []}
        self.later: dict[str, list[LogRecord]] = {}

    def set(self, key: str, value: Any, *, later: bool = False, **headers: str) -> int:
        """A record of the config topic; None deletes. Returns its version."""
        raw = None if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        return self._add(CONFIG, key.encode(), raw, later=later, **headers)

    def say(self, said: Answer | Presence, *, later: bool = False) -> None:
        self._add(CONFIG_APPLIED, said.record_key, said.encode(), later=later)

    def note(self, **entry: Any) -> None:
        """A record of the log of changes."""
        self._add(CONFIG_HISTORY, None, json.dumps({"v": 1, **entry}).encode())

    def _add(self, topic: str, key: bytes | None, value: bytes | None, *, later: bool = False, **headers: str) -> int:
        kept = self.later.setdefault(topic, []) if later else self.records[topic]
        offset = len(self.records[topic]) + (len(kept) if later else 0)
        named = tuple((name.replace("_", "-"), text.encode()) for name, text in headers.items())
        kept.append(LogRecord(0, offset, round(time.time() * 1000), key, value, named))
        return offset

    def log(self, *, topic: str, **_: Any) -> ListedLog:
        return ListedLog(self, topic)

    def stand_in(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        """From now on these modules read from here."""
        for module in modules:
            monkeypatch.setattr(f"{module}.CompactedLog", self.log)


class ListedLog:
    """Hands out what stands in a topic, then what comes later, then nothing."""

    def __init__(self, topics: Topics, topic: str) -> None:
        self._parts = [topics.records[topic], topics.later.get(topic, [])]
        self.caught_up = asyncio.Event()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def __aenter__(self) -> ListedLog:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def getmany(self, *, timeout_ms: int) -> list[LogRecord]:
        if self._parts and (not self.caught_up.is_set() or len(self._parts) == 1):
            self.caught_up.set()
            return list(self._parts.pop(0))
        await asyncio.sleep(timeout_ms / 1000)
        return []
