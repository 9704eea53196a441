"""Whether a reader that looks back finds all that was written since, judged by what the topic still holds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from rayline.bus import CompactedLog, KafkaSettings, log

ONE = TopicPartition("t", 0)


class Consumer:
    """Stands for aiokafka's, over one partition: `kept` is its first record, `since` the first of the time that is asked for."""

    kept: int = 0
    end: int = 0
    since: int | None = None

    def __init__(self, **_: Any) -> None:
        self._client = SimpleNamespace(
            bootstrap=self.start, close=self.stop, _wait_on_metadata=self._partitions, _get_conn_lock=asyncio.Lock()
        )
        state = SimpleNamespace(position=0)
        assignment = SimpleNamespace(state_value=lambda _: state)
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def _partitions(self, _: str) -> set[int]:
        return {0}

    def assign(self, _: object) -> None: ...

    def seek(self, *_: object) -> None: ...

    async def beginning_offsets(self, _: object) -> dict[TopicPartition, int]:
        return {ONE: self.kept}

    async def end_offsets(self, _: object) -> dict[TopicPartition, int]:
        return {ONE: self.end}

    async def offsets_for_times(self, _: object) -> dict[TopicPartition, Any]:
        return {ONE: None if self.since is None else SimpleNamespace(offset=self.since)}


@pytest.mark.parametrize(
    ("kept", "end", "since", "whole"),
    [
        (0, 0, None, True),
        (0, 9, 0, True),
        (0, 9, None, True),
        (4, 9, 6, True),
        (4, 9, None, True),
        (4, 9, 4, False),
        (9, 9, None, False),
    ],
)
async def test_all_is_there_where_something_older_is_or_never_was(
    monkeypatch: pytest.MonkeyPatch, kept: int, end: int, since: int | None, whole: bool
) -> None:
    monkeypatch.setattr(log, "AIOKafkaConsumer", Consumer)
    for name, value in (("kept", kept), ("end", end), ("since", since)):
        monkeypatch.setattr(Consumer, name, value)
    async with CompactedLog(settings=KafkaSettings("127.0.0.1:1"), topic="t", since_ms=1) as reader:
        assert reader.whole is whole
