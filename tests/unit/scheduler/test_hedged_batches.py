"""Hedges, the budget and bisection, as the dispatcher lives them: against fake actors, under virtual time."""

from __future__ import annotations

import asyncio

import pytest

from rayline.reports import NodeState
from rayline.results import Outcome
from rayline.wire import JobStatus, Verdict
from scheduler.budget import RetryBudget
from scheduler.hedging import MIN_SAMPLES
from scheduler.view import SUSPECT_AFTER_SECONDS
from tests.unit.ingest.jobs import job
from tests.unit.scheduler import virtual_time
from tests.unit.scheduler.world import Exchange, World, all_done, all_out, forever, jobs_of

PLACES = {"a": ("c1", "z1"), "b": ("c1", "z2"), "c": ("c2", "z1"), "d": ("c2", "z2")}
FIRST = 1000


async def warm_up(world: World, size: int = 1) -> int:
    """Enough batches of so many jobs to know what is late; returns how many jobs that took."""
    count = MIN_SAMPLES * size
    for start in range(FIRST, FIRST + count, size):
        world.submit([job(n, payload=b"%d" % n, expires=1e6) for n in range(start, start + size)])
        await asyncio.sleep(0.02)
    assert len(world.outcomes) == count
    world.sent.clear()
    return count


def sent_to(world: World, offset: int) -> list[str]:
    return [node for node, offsets in world.sent if offset in offsets]


@pytest.mark.parametrize(
    ("nodes", "expected"), [("abcd", {"c1": "cd", "c2": "ab"}), ("ab", {"c1": "ab"}), ("ac", {"c1": "c", "c2": "a"})]
)
def test_a_late_batch_is_hedged_once_in_another_cluster_where_there_is_one(nodes: str, expected: dict[str, str]) -> None:
    async def main() -> World:
        world = World(nodes=nodes, places=PLACES)
        async with world.running():
            await asyncio.sleep(0.1)
            before = await warm_up(world)

            async def behave(exchange: Exchange) -> Verdict:
                return await (forever(exchange) if len(world.sent) == 1 else all_done(exchange))

            world.behave = behave
            world.submit([job(0, payload=b"0", expires=60.0)])
            await all_out(world, before + 1)
            await asyncio.sleep(0.2)
            assert world.dispatcher.in_flight == 0, "the loser goes on"
        return world

    world = virtual_time.run(main())
    first, second = sent_to(world, 0)
    assert first != second
    assert second in expected[PLACES[first][0]]
    assert world.cancelled == [(first, [0])]
    assert world.attempts[0] == 2
    statistics = world.dispatcher.statistics()
    assert (statistics.hedged, statistics.hedge_wins) == (1, 1)


def test_only_what_is_unfinished_is_hedged_and_the_first_one_may_still_win() -> None:
    async def main() -> World:
        world = World(nodes="ac", places=PLACES)
        async with world.running():
            await asyncio.sleep(0.1)
            before = await warm_up(world, size=3)

            async def behave(exchange: Exchange) -> Verdict:
                if len(world.sent) > 1:
                    return await forever(exchange)
                exchange.answer([0, 2])
                await asyncio.sleep(2.0)
                exchange.answer([1])
                return Verdict.DONE

            world.behave = behave
            world.submit([job(n, payload=b"%d" % n, expires=60.0) for n in range(3)])
            await all_out(world, before + 3)
            await asyncio.sleep(0.2)
        return world

    world = virtual_time.run(main())
    assert [offsets for _, offsets in world.sent] == [[0, 1, 2], [1]]
    assert world.cancelled == [(world.sent[1][0], [1])]
    assert (world.attempts[0], world.attempts[1]) == (1, 2)
    assert world.dispatcher.statistics().hedge_wins == 0


def test_what_a_frozen_node_holds_is_answered_elsewhere_and_nothing_new_goes_there() -> None:
    async def main() -> World:
        world = World(nodes="abc")
        frozen_at = 1.0

        async def behave(exchange: Exchange) -> Verdict:
            if exchange.node == "a" and world.now() >= frozen_at:
                assert world.now() - frozen_at < 3.5 + 1.0, "sent to a silent node"
                return await forever(exchange)
            return await all_done(exchange)

        world.behave = behave
        async with world.running():
            offset = 0
            while world.now() < 40.0:
                if world.now() >= frozen_at:
                    world.beating.pop("a", None)
                world.submit([job(offset, payload=b"%d" % offset, expires=world.now() + 10.0)])
                offset += 1
                await asyncio.sleep(0.05)
            await all_out(world, offset)
        return world

    world = virtual_time.run(main())
    assert set(world.outcomes.values()) == {Outcome.OK}
    taken = {offset: at - 0.05 * offset for offset, at in world.ended_at.items()}
    assert max(taken.values()) < SUSPECT_AFTER_SECONDS + 2.0
    assert world.dispatcher.statistics().extra_share < 0.2


def test_a_batch_whose_worker_is_killed_is_sent_again_at_once() -> None:
    async def main() -> World:
        world = World(nodes="abc")
        killed_at: list[float] = []
        again_at: dict[int, float] = {}

        async def behave(exchange: Exchange) -> Verdict:
            if not killed_at:
                await asyncio.sleep(0.5)
                killed_at.append(world.now())
                return Verdict.LOST
            again_at.update(dict.fromkeys(exchange.offsets, world.now()))
            return await all_done(exchange)

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            world.submit(jobs_of(64), size=64)
            await all_out(world, 64)
        assert max(again_at.values()) - killed_at[0] < 0.1
        return world

    assert set(virtual_time.run(main()).outcomes.values()) == {Outcome.OK}


def test_what_has_no_budget_waits_for_it_and_ends_at_its_deadline_at_the_latest() -> None:
    async def main() -> World:
        world = World(nodes="ab", budget=RetryBudget(now=0.0, reserve_jobs=10))

        async def behave(exchange: Exchange) -> Verdict:
            await asyncio.sleep(0.01)
            if world.now() < 1.0:
                return Verdict.DRAINING
            return await all_done(exchange)

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            world.submit(jobs_of(40, expires=8.0), size=10)
            await asyncio.sleep(0.5)
            world.beating = dict.fromkeys("ab", 2)
            await all_out(world, 40)
        return world

    world = virtual_time.run(main())
    statistics = world.dispatcher.statistics()
    assert statistics.short_of_budget > 0
    assert sum(statistics.again.values()) <= 0.2 * 40 + 10 * (1 + 8.2 / 10)
    assert set(world.outcomes.values()) == {Outcome.OK, Outcome.DEADLINE_EXCEEDED}
    assert max(world.ended_at.values()) < 8.0 + 0.3


def test_nothing_is_dispatched_again_that_its_deadline_allows_no_answer_to() -> None:
    async def main() -> World:
        world = World(nodes="ab")

        async def behave(exchange: Exchange) -> Verdict:
            await asyncio.sleep(1.0)
            if exchange.offsets == [0]:
                return Verdict.DRAINING
            exchange.answer(exchange.offsets)
            return Verdict.DONE

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            world.submit(jobs_of(2, expires=60.0)[1:])
            await all_out(world, 1)
            world.submit([job(0, payload=b"0", expires=world.now() + 1.5)])
            await all_out(world, 2)
        return world

    world = virtual_time.run(main())
    assert world.outcomes[0] is Outcome.DEADLINE_EXCEEDED
    assert len(sent_to(world, 0)) == 1


def test_when_every_node_is_evicted_jobs_wait_and_run_when_nodes_come_back() -> None:
    async def main() -> World:
        world = World(nodes="abcd")
        gone: set[str] = set()

        async def behave(exchange: Exchange) -> Verdict:
            assert exchange.node not in gone, "a new batch after the notice"
            await asyncio.sleep(0.3)
            if exchange.node in gone:
                exchange.answer(exchange.offsets[:2])
                return Verdict.DRAINING
            exchange.answer(exchange.offsets)
            return Verdict.DONE

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            world.submit(jobs_of(128, expires=10.0), size=8)
            await asyncio.sleep(0.1)
            gone.update("abcd")
            world.beat(state=NodeState.DRAINING)
            world.beating.clear()
            await asyncio.sleep(3.0)
            assert world.dispatcher.in_flight == 0
            gone.clear()
            world.beating = dict.fromkeys("abcd", 2)
            await all_out(world, 128)
        return world

    world = virtual_time.run(main())
    assert set(world.outcomes.values()) == {Outcome.OK}
    assert set(world.dispatcher.statistics().again) == {"evicted"}


@pytest.mark.parametrize("poison", [0, 31, 63])
def test_bisection_never_blames_those_that_ran_beside_the_poison(poison: int) -> None:
    """Every batch that is in a process when it dies is under suspicion; only one of them holds the job at fault."""

    async def main() -> World:
        world = World(nodes="ab")
        here: dict[str, list[asyncio.Event]] = {"a": [], "b": []}

        async def behave(exchange: Exchange) -> Verdict:
            died = asyncio.Event()
            here[exchange.node].append(died)
            try:
                async with asyncio.timeout(0.05):
                    await died.wait()
                return Verdict.LOST
            except TimeoutError:
                if poison in exchange.offsets:
                    for other in here[exchange.node]:
                        other.set()
                    return Verdict.LOST
                exchange.answer(exchange.offsets)
                return Verdict.DONE
            finally:
                here[exchange.node].remove(died)

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            world.submit(jobs_of(64, expires=30.0), size=1)
            await all_out(world, 64)
        return world

    world = virtual_time.run(main())
    assert world.outcomes.pop(poison) is Outcome.QUARANTINED
    assert set(world.outcomes.values()) == {Outcome.OK}
    assert len(sent_to(world, poison)) == 2


def test_an_actor_that_nobody_can_hear_costs_half_the_time_and_not_the_job() -> None:
    """An asymmetric cut: its node beats on, nothing was measured yet, and no answer ever comes."""

    async def main() -> World:
        world = World(nodes="ac", places=PLACES)

        async def behave(exchange: Exchange) -> Verdict:
            return await (forever(exchange) if exchange.node == "a" else all_done(exchange))

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            world.submit(jobs_of(2, expires=10.0), size=1)
            await all_out(world, 2)
        return world

    world = virtual_time.run(main())
    assert set(world.outcomes.values()) == {Outcome.OK}
    assert max(world.ended_at.values()) < 6.0


def test_an_error_of_a_hedged_job_is_an_answer() -> None:
    async def main() -> World:
        world = World(nodes="ac", places=PLACES)
        async with world.running():
            await asyncio.sleep(0.1)
            before = await warm_up(world)

            async def behave(exchange: Exchange) -> Verdict:
                if len(world.sent) == 1:
                    return await forever(exchange)
                exchange.answer(exchange.offsets, status=JobStatus.ERROR)
                return Verdict.DONE

            world.behave = behave
            world.submit([job(0, payload=b"0", expires=60.0)])
            await all_out(world, before + 1)
            await asyncio.sleep(0.2)
            assert world.dispatcher.in_flight == 0
        return world

    assert virtual_time.run(main()).outcomes[0] is Outcome.ERROR


@pytest.mark.parametrize("stood_seconds", [0.0, 5.0])
def test_a_lane_that_stood_still_hedges_nothing_for_it(stood_seconds: float) -> None:
    async def main() -> World:
        world = World(nodes="ac", places=PLACES)
        async with world.running():
            await asyncio.sleep(0.1)
            before = await warm_up(world)
            answers = asyncio.Event()

            async def behave(exchange: Exchange) -> Verdict:
                await answers.wait()
                return await all_done(exchange)

            world.behave = behave
            world.submit([job(0, payload=b"0", expires=60.0)])
            await asyncio.sleep(0.1)
            world.stood_seconds = stood_seconds
            world.beat()
            await asyncio.sleep(0.1)
            answers.set()
            await all_out(world, before + 1)
        return world

    world = virtual_time.run(main())
    assert world.dispatcher.statistics().hedged == 0
    assert world.attempts[0] == 1


def test_what_does_not_end_after_a_standstill_is_hedged_all_the_same() -> None:
    async def main() -> World:
        world = World(nodes="ac", places=PLACES)
        async with world.running():
            await asyncio.sleep(0.1)
            before = await warm_up(world)

            async def behave(exchange: Exchange) -> Verdict:
                return await (forever(exchange) if len(world.sent) == 1 else all_done(exchange))

            world.behave = behave
            world.submit([job(0, payload=b"0", expires=60.0)])
            await asyncio.sleep(0.1)
            world.stood_seconds = 5.0
            await all_out(world, before + 1)
        return world

    world = virtual_time.run(main())
    assert world.dispatcher.statistics().hedged == 1
