"""Whoever owns several clients closes all of them, also those that were never started."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

import pytest

from deploy import config_board, config_guard, dead_letters
from deploy.config_board import ConfigBoard
from deploy.config_guard import ResultGuard
from deploy.dead_letters import DeadLetter, replay
from rayline.bus import KafkaSettings, LogRecord
from rayline.bus.bounds import TopicBounds
from rayline.errors import BrokerUnavailable, BusError

NOWHERE = KafkaSettings("127.0.0.1:1")


class Reader:
    """Stands for a reader whose broker does not answer."""

    made: list[Reader]

    def __init__(self, **_: Any) -> None:
        self.open = True
        self.made.append(self)

    async def start(self) -> None:
        self.open = False
        raise BrokerUnavailable("no broker answers")

    async def stop(self) -> None:
        self.open = False


@pytest.mark.parametrize(
    ("module", "owner"),
    [
        (config_board, lambda: ConfigBoard(NOWHERE)),
        (config_guard, lambda: ResultGuard(NOWHERE, ["a", "b", "c"], span_seconds=1.0)),
    ],
)
async def test_where_the_first_reader_finds_no_broker_the_others_are_closed(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, owner: Any
) -> None:
    Reader.made = []
    monkeypatch.setattr(module, "CompactedLog", Reader)
    with pytest.raises(BrokerUnavailable):
        await owner().__aenter__()
    assert len(Reader.made) > 1
    assert not any(reader.open for reader in Reader.made)


async def test_of_two_clients_the_second_is_closed_where_the_first_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = TopicBounds(settings=NOWHERE)
    closed: list[str] = []

    async def fail() -> None:
        raise BusError("the connection is gone")

    async def close() -> None:
        closed.append("admin")

    with monkeypatch.context() as patched:
        patched.setattr(bounds._consumer, "stop", fail)
        patched.setattr(bounds._admin, "close", close)
        with pytest.raises(BusError):
            await bounds.stop()
    assert closed == ["admin"]
    await bounds.stop()


async def test_a_replay_that_fails_closes_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    async def letters(*_: object) -> AsyncGenerator[DeadLetter, None]:
        try:
            yield DeadLetter(LogRecord(0, 0, 0, None, b"v"))
        finally:
            closed.append("reader")

    class Refused:
        def __init__(self, **_: Any) -> None: ...

        async def __aenter__(self) -> Refused:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def send(self, *_: object, **__: object) -> None:
            raise BusError("no answer")

    # Held, so that it is not collected but closed.
    held = letters()
    monkeypatch.setattr(dead_letters, "read_dead_letters", lambda *_: held)
    monkeypatch.setattr(dead_letters, "Publisher", Refused)
    with pytest.raises(BusError):
        await replay(NOWHERE, "app", None)
    assert closed == ["reader"]
