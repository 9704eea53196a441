"""After an overload that was longer than the deadline, the system works again: it does not spend itself on what is too late."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from rayline.results import Outcome
from rayline.wire import Verdict
from tests.unit.ingest.jobs import job
from tests.unit.scheduler import virtual_time
from tests.unit.scheduler.world import Exchange, World, all_out

RATE_PER_SECOND = 50
JOB_SECONDS = 0.02
CAPACITY_PER_SECOND = 2 / JOB_SECONDS  # of two actors
SLA_SECONDS = 10.0
PATIENCE_SECONDS = 0.2
SLOW_FROM, SLOW_UNTIL, END = 5.0, 45.0, 80.0


@pytest.mark.parametrize("slower", [4, 15, 100])
def test_an_overload_ends_with_its_cause(slower: float) -> None:
    async def main() -> World:
        world = World(nodes="ab")
        turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

        async def behave(exchange: Exchange) -> Verdict:
            turn = turns[exchange.node]
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await turn.acquire()
            except TimeoutError:
                return Verdict.BUSY
            try:
                slow = slower if SLOW_FROM <= world.now() < SLOW_UNTIL else 1.0
                await asyncio.sleep(JOB_SECONDS * slow * len(exchange.offsets))
            finally:
                turn.release()
            exchange.answer(exchange.offsets)
            return Verdict.DONE

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            for number in range(int(END * RATE_PER_SECOND)):
                await asyncio.sleep(max(0.0, number / RATE_PER_SECOND - world.now()))
                world.submit([job(number, payload=b"%d" % number, expires=world.now() + SLA_SECONDS)], size=1)
            await asyncio.sleep(SLA_SECONDS)
        return world

    world = virtual_time.run(main())
    second = [world.outcomes[number] for number in range(len(world.outcomes))]

    def ok_share(begin: float, end: float) -> float:
        jobs = second[int(begin * RATE_PER_SECOND) : int(end * RATE_PER_SECOND)]
        return sum(outcome is Outcome.OK for outcome in jobs) / len(jobs)

    assert ok_share(SLOW_UNTIL + 5, END) == 1.0, "the overload outlived its cause"
    # Meanwhile the slow actors worked for jobs that were still in time.
    assert ok_share(SLOW_FROM + SLA_SECONDS, SLOW_UNTIL) >= 0.7 * CAPACITY_PER_SECOND / slower / RATE_PER_SECOND


def test_a_job_with_less_time_than_usual_is_tried_where_nobody_waits_for_the_actor() -> None:
    async def main() -> World:
        world = World(nodes="a")

        async def behave(exchange: Exchange) -> Verdict:
            await asyncio.sleep(0.5 if exchange.offsets[0] < 40 else 0.1)
            exchange.answer(exchange.offsets)
            return Verdict.DONE

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            for number in range(41):
                left = 10.0 if number < 40 else 0.3
                world.submit([job(number, payload=b"%d" % number, expires=world.now() + left)], size=1)
                await all_out(world, number + 1)
        return world

    world = virtual_time.run(main())
    assert set(world.outcomes.values()) == {Outcome.OK}
