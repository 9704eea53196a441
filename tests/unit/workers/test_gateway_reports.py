"""What a gateway tells: news at once and for themselves, everything once a second, whatever the broker does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rayline.errors import BusError
from rayline.reports import NodeReport, NodeState
from rayline.topics import BEATS_PARTITION, CHANGES_PARTITION
from workers import gateway
from workers.gateway import Gateway

A = NodeReport("c1", "a", 1, 0, NodeState.STARTING, actors=())
B = NodeReport("c1", "b", 1, 0, NodeState.STARTING, actors=())
B_READY = NodeReport("c1", "b", 1, 0, NodeState.READY, actors=())


class Told:
    """The reports of a gateway whose cluster looks as `rounds` say, one after the other (the last one stays)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rounds: Sequence[tuple[NodeReport, ...]]) -> None:
        monkeypatch.setattr(gateway, "STEP_SECONDS", 0.05)
        self.records: list[tuple[int, list[NodeReport]]] = []
        self.refuse_changes = 0
        self._left = list(rounds)
        self._more = asyncio.Event()
        self.gateway = Gateway(cluster="c1", address="", token_path=Path("/nowhere"), token="", sink=self._sink)
        monkeypatch.setattr(self.gateway, "_step", self._step)

    def _step(self, _now: float) -> tuple[NodeReport, ...]:
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]

    async def _sink(self, reports: list[NodeReport], partition: int) -> None:
        if partition == CHANGES_PARTITION and self.refuse_changes:
            self.refuse_changes -= 1
            raise BusError("away")
        self.records.append((partition, reports))
        self._more.set()

    def names(self, partition: int) -> list[list[str]]:
        return [[report.node for report in reports] for found, reports in self.records if found == partition]

    async def until(self, condition: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.gateway._step_until_stopped())
        async with asyncio.timeout(10):
            while not condition():
                self._more.clear()
                await self._more.wait()
        self.gateway.stop()
        await running


async def test_only_what_changed_is_news_and_each_round_tells_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, [(A, B), (A, B), (A, B_READY)])
    await told.until(lambda: len(told.names(CHANGES_PARTITION)) == 2 and len(told.names(BEATS_PARTITION)) >= 5)
    assert told.names(CHANGES_PARTITION) == [["a", "b"], ["b"]]
    assert set(map(tuple, told.names(BEATS_PARTITION))) == {("a", "b")}


async def test_news_that_the_broker_did_not_take_are_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, [(A, B)])
    told.refuse_changes = 2
    await told.until(lambda: bool(told.names(CHANGES_PARTITION)))
    assert told.names(CHANGES_PARTITION) == [["a", "b"]]


async def test_a_gateway_is_no_proof_of_life_and_its_numbers_only_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, [(A,), (A, B)])
    await told.until(lambda: len(told.records) >= 6)
    numbers = [report.seq for _, reports in told.records for report in reports[:1]]
    assert numbers == sorted(set(numbers))
    assert not any(report.beat for _, reports in told.records for report in reports)
