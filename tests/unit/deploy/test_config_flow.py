"""A guarded change that is interrupted before it is judged: whenever that is, it is taken back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from deploy.config_change import Author, read_request
from deploy.config_flow import Care, ConfigFlow
from rayline.bus import Delivery, KafkaSettings
from rayline.config import Answer, Presence, ProcessIdentity, Role, Verdict
from rayline.topics import CONFIG, results_topic
from tests.unit.deploy.config_topics import Topics

KEY = "app/ocr/batching.max_jobs"
LANE = ProcessIdentity(role=Role.LANE, app="ocr", name="0")


class SlowPublisher:
    """Takes records, and confirms those of the config topic when it is told to."""

    def __init__(self, first_offset: int) -> None:
        self.written: list[Any] = []
        self.wrote = asyncio.Event()
        self.confirm = asyncio.Event()
        self.noted = asyncio.Event()
        self._offset = first_offset

    def __call__(self, **_: Any) -> SlowPublisher:
        return self

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Any = ()) -> asyncio.Task[Delivery]:
        assert topic == CONFIG
        self.written.append(None if value is None else json.loads(value))
        self._offset += 1
        self.wrote.set()
        return asyncio.create_task(self._confirmed(Delivery(0, self._offset - 1, 0)))

    async def _confirmed(self, delivery: Delivery) -> Delivery:
        await self.confirm.wait()
        return delivery

    async def publish(self, topic: str, *, key: bytes | None, value: bytes | None) -> None:
        self.noted.set()


@pytest.mark.parametrize("moment", ["while it is written", "while answers are awaited", "while it is watched"])
async def test_a_guarded_change_that_is_interrupted_is_taken_back(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics()
    topics.records[results_topic("ocr")] = []
    topics.say(Presence(LANE, {"batching.max_jobs": (9, KEY)}))
    topics.stand_in(monkeypatch, "deploy.config_board", "deploy.config_guard")
    before = topics.set(KEY, 9)
    if moment == "while it is watched":
        topics.say(Answer(KEY, before + 1, LANE.process, Verdict.APPLIED, 5, KEY), later=True)
    publisher = SlowPublisher(before + 1)
    monkeypatch.setattr("deploy.config_change.Publisher", publisher)
    watching = asyncio.Event()
    flow = ConfigFlow(
        settings=KafkaSettings("127.0.0.1:1"),
        author=Author("ada", "host", "anonymous"),
        timeout_seconds=0.5,
        say=lambda text: watching.set() if "watching" in text else None,
    )
    running = asyncio.create_task(flow.run(read_request(KEY, "5"), care=Care(guard_seconds=60.0)))
    await publisher.wrote.wait()
    if moment == "while it is written":
        running.cancel()
        await asyncio.sleep(0)
        publisher.confirm.set()
    else:
        publisher.confirm.set()
        await (watching if moment == "while it is watched" else publisher.noted).wait()
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert publisher.written == [5, {"v": 1, "value": 9, "if_previous": before + 1}]
