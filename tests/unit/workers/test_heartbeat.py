"""Beats keep their rhythm whatever the broker does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from rayline.errors import BusError, ConfigError
from workers.heartbeat import JITTER_SHARE, Heartbeat


class Beats:
    """Counts beats; each waits for `let_through`."""

    def __init__(self) -> None:
        self.begun = 0
        self.let_through = asyncio.Event()
        self.let_through.set()
        self.error: Exception | None = None
        self._more = asyncio.Event()

    async def beat(self) -> None:
        self.begun += 1
        self._more.set()
        if self.error is not None:
            raise self.error
        await self.let_through.wait()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.begun < count:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def running(beat: Callable[[], Awaitable[None]], seconds: float = 0.1) -> AsyncIterator[Heartbeat]:
    heartbeat = Heartbeat(beat=beat, interval_seconds=seconds)
    task = asyncio.create_task(heartbeat.run())
    try:
        yield heartbeat
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_the_first_beat_comes_at_once_and_others_follow() -> None:
    beats = Beats()
    async with running(beats.beat):
        await beats.wait_for(3)


async def test_while_a_beat_is_held_up_the_next_ones_are_dropped_and_not_queued() -> None:
    beats = Beats()
    beats.let_through.clear()
    async with running(beats.beat) as heartbeat:
        async with asyncio.timeout(10):
            while heartbeat.dropped < 3:  # noqa: ASYNC110 - time has to pass, and only the rhythm itself tells
                await asyncio.sleep(0.01)
        assert beats.begun == 1
        beats.let_through.set()
        await beats.wait_for(2)
        assert beats.begun == 2


async def test_a_broker_that_refuses_does_not_end_the_rhythm() -> None:
    beats = Beats()
    beats.error = BusError("away")
    async with running(beats.beat):
        await beats.wait_for(3)


async def test_a_fault_of_our_own_ends_the_rhythm_instead_of_being_swallowed() -> None:
    beats = Beats()
    beats.error = KeyError("ours")
    with pytest.raises(KeyError, match="ours"):
        await Heartbeat(beat=beats.beat, interval_seconds=0.1).run()


async def test_a_new_interval_holds_at_once() -> None:
    beats = Beats()
    async with running(beats.beat, seconds=60) as heartbeat:
        await beats.wait_for(1)
        heartbeat.set_interval(0.1)
        await beats.wait_for(3)
        assert heartbeat.interval_seconds == 0.1


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.05, 61.0, float("nan")])
def test_an_interval_that_helps_nobody_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="choose"):
        Heartbeat(beat=Beats().beat, interval_seconds=seconds)


async def test_intervals_differ_a_little_and_three_fit_into_a_missed_beats_time() -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    beats = Beats()
    heartbeat = Heartbeat(beat=beats.beat, interval_seconds=0.1, uniform=uniform)
    task = asyncio.create_task(heartbeat.run())
    await beats.wait_for(2)
    task.cancel()
    await asyncio.wait({task})
    assert set(drawn) == {(1 - JITTER_SHARE, 1 + JITTER_SHARE)}
    assert 3 * (1 + JITTER_SHARE) < 3.5
