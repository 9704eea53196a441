"""The dispatcher: every job comes out once, whatever its actors do, and in time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayline.app_spec import Retries
from rayline.errors import ChannelLost
from rayline.reports import NodeState
from rayline.results import Outcome
from rayline.wire import JobStatus, Verdict
from scheduler.dispatcher import SWEEP_SECONDS
from scheduler.view import SUSPECT_AFTER_SECONDS
from tests.unit.ingest.jobs import job
from tests.unit.scheduler import virtual_time
from tests.unit.scheduler.world import SLOTS, SPEC, Exchange, World, all_done, all_out, forever, jobs_of

FATES = ["done", "errors", "draining", "lost", "busy", "timeout", "unreached", "raises", "hangs", "slow"]


@given(
    count=st.integers(1, 60),
    fates=st.lists(st.sampled_from(FATES), max_size=30),
    deaths=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 6), st.booleans()), max_size=3),
    errors=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_every_job_comes_out_once_and_in_time_whatever_happens(
    count: int, fates: list[str], deaths: list[tuple[str, float, bool]], errors: int, seed: int
) -> None:
    numbers, script = Random(seed), iter(fates)

    async def behave(exchange: Exchange) -> Verdict:
        fate = next(script, "done")
        await asyncio.sleep(numbers.choice([0.0, 0.005, 0.1]))
        some = numbers.sample(exchange.offsets, numbers.randint(0, len(exchange.offsets)))
        match fate:
            case "done" | "slow":
                await asyncio.sleep(2.0 if fate == "slow" else 0.0)
                exchange.answer(exchange.offsets)
                return Verdict.DONE
            case "errors":
                exchange.answer(some)
                exchange.answer([offset for offset in exchange.offsets if offset not in some], status=JobStatus.ERROR)
                return Verdict.DONE
            case "raises":
                exchange.answer(some)
                raise ChannelLost("broken")
            case "hangs":
                return await forever(exchange)
        if fate not in ("busy", "unreached"):
            exchange.answer(some)
        return Verdict(fate)

    async def main() -> World:
        world = World(spec=replace(SPEC, retries=Retries(errors=errors)))
        world.behave = behave
        async with world.running():
            await asyncio.sleep(0)
            world.submit(jobs_of(count))
            for node, at, silent in sorted(deaths, key=lambda death: death[1]):
                await asyncio.sleep(max(0.0, at - world.now()))
                if silent and len(world.beating) > 1:
                    world.beating.pop(node, None)
                elif node in world.beating:
                    world.beating[node] += 1
            await asyncio.sleep(max(0.0, 10.0 + 3 * SWEEP_SECONDS - world.now()))
            assert world.dispatcher.queued == 0
        return world

    world = virtual_time.run(main())
    assert sorted(world.outcomes) == list(range(count))
    assert max(world.ended_at.values()) <= 10.0 + 2 * SWEEP_SECONDS


@pytest.mark.parametrize("poison", [0, 13, 63])
def test_the_job_that_kills_its_worker_is_quarantined_and_its_neighbours_succeed(poison: int) -> None:
    async def main() -> World:
        world = World(nodes="abcd")

        async def behave(exchange: Exchange) -> Verdict:
            if poison not in exchange.offsets:
                return await all_done(exchange)
            await asyncio.sleep(0.02)
            return Verdict.LOST

        world.behave = behave
        async with world.running():
            world.submit(jobs_of(64), size=64)
            await all_out(world, 64)
        return world

    world = virtual_time.run(main())
    assert world.outcomes.pop(poison) is Outcome.QUARANTINED
    assert set(world.outcomes.values()) == {Outcome.OK}
    assert sum(offsets == [poison] for _, offsets in world.sent) == SPEC.retries.kills
    assert sum(poison in offsets for _, offsets in world.sent) == 6 + SPEC.retries.kills


def test_a_worker_that_dies_with_its_evicted_node_blames_no_job() -> None:
    async def main() -> World:
        world = World(spec=replace(SPEC, retries=Retries(kills=1)))

        async def behave(exchange: Exchange) -> Verdict:
            if exchange.node != "a":
                return await all_done(exchange)
            world.beat(state=NodeState.DRAINING, nodes="a")
            del world.beating["a"]
            return Verdict.LOST

        world.behave = behave
        async with world.running():
            world.submit(jobs_of(3), size=1)
            await all_out(world, 3)
        return world

    world = virtual_time.run(main())
    assert set(world.outcomes.values()) == {Outcome.OK}
    assert "a" in {node for node, _ in world.sent}


@pytest.mark.parametrize("steps", range(6))
def test_a_node_that_goes_gives_its_batches_back_however_early_the_news_comes(steps: int) -> None:
    async def main() -> World:
        world = World(nodes="ab")

        async def behave(exchange: Exchange) -> Verdict:
            return await (forever(exchange) if exchange.node == "a" else all_done(exchange))

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.5)
            world.submit(jobs_of(2), size=1)
            for _ in range(steps):
                await asyncio.sleep(0)
            world.beat(state=NodeState.GONE, nodes="a")
            del world.beating["a"]
            await all_out(world, 2)
        return world

    world = virtual_time.run(main())
    assert set(world.outcomes.values()) == {Outcome.OK}
    assert max(world.ended_at.values()) < 1.0


def test_a_node_that_falls_silent_gives_its_batches_back_after_three_missed_beats() -> None:
    async def main() -> World:
        world = World(nodes="ab")

        async def behave(exchange: Exchange) -> Verdict:
            return await (forever(exchange) if exchange.node == "a" else all_done(exchange))

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.5)
            world.submit(jobs_of(2), size=1)
            await asyncio.sleep(0.1)
            del world.beating["a"]
            await all_out(world, 2)
        return world

    world = virtual_time.run(main())
    assert set(world.nodes_of.values()) == {"b"}
    assert max(world.ended_at.values()) < SUSPECT_AFTER_SECONDS + 1.2


def test_without_any_actor_jobs_end_at_their_deadline() -> None:
    async def main() -> World:
        world = World(nodes="")
        async with world.running():
            world.submit([job(offset, payload=b"%d" % offset, expires=1.0 + offset % 5) for offset in range(20)])
            await all_out(world, 20)
        return world

    world = virtual_time.run(main())
    assert set(world.outcomes.values()) == {Outcome.DEADLINE_EXCEEDED}
    assert all(0 <= at - (1.0 + offset % 5) <= 2 * SWEEP_SECONDS for offset, at in world.ended_at.items())


def test_a_job_expires_in_flight_on_time_even_while_other_batches_keep_landing() -> None:
    async def main() -> World:
        world = World(nodes="ab")

        async def behave(exchange: Exchange) -> Verdict:
            return await (forever(exchange) if 0 in exchange.offsets else all_done(exchange))

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.2)
            stuck = [job(0, payload=b"0", expires=1.0), job(1, payload=b"1", expires=6.0)]
            world.submit(stuck)
            offset = 2
            while world.now() < 3.0:
                world.submit([job(offset, payload=b"%d" % offset, expires=20.0)])
                offset += 1
                await asyncio.sleep(SWEEP_SECONDS / 5)
            assert 1 not in world.outcomes
        return world

    world = virtual_time.run(main())
    assert world.outcomes[0] is Outcome.DEADLINE_EXCEEDED
    assert world.ended_at[0] <= 1.0 + 2 * SWEEP_SECONDS


def test_a_batch_that_must_avoid_the_only_free_node_lets_others_pass() -> None:
    async def main() -> World:
        world = World(nodes="ab")

        async def behave(exchange: Exchange) -> Verdict:
            if exchange.node == "b":
                return await forever(exchange)
            if 99 in exchange.offsets and len(world.sent) <= 2 * SLOTS:
                return Verdict.BUSY
            return await all_done(exchange)

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            filling = [job(200 + n, payload=b"%d" % (200 + n), expires=3.0) for n in range(2 * (SLOTS - 1))]
            world.submit(filling, size=1)
            await asyncio.sleep(0.5)
            world.submit([job(99, payload=b"99", expires=9.0)])
            await asyncio.sleep(0.5)
            world.submit(jobs_of(10), size=1)
            await asyncio.sleep(0.5)
            assert set(range(10)) <= set(world.outcomes), "held up by a batch that waits for another node"
        return world

    world = virtual_time.run(main())
    assert next(node for node, offsets in world.sent if offsets == [99]) == "a"


def test_jobs_of_other_lanes_partitions_are_forgotten_wherever_they_are() -> None:
    async def main() -> World:
        world = World(nodes="a", spec=replace(SPEC, retries=Retries(errors=3)))
        release = asyncio.Event()

        async def behave(exchange: Exchange) -> Verdict:
            await release.wait()
            exchange.answer(exchange.offsets, status=JobStatus.ERROR if len(world.sent) < 3 else JobStatus.OK)
            return Verdict.DONE

        world.behave = behave
        async with world.running():
            await asyncio.sleep(0.1)
            world.submit([job(n, partition=n % 2, payload=b"%d" % n, expires=9.0) for n in range(40)], size=4)
            await asyncio.sleep(0.1)
            world.dispatcher.retain({("app.requests", 1)})
            release.set()
            await world.dispatcher.wait_quiet()
        return world

    world = virtual_time.run(main())
    assert sorted(world.outcomes) == list(range(1, 40, 2))


def test_what_nobody_foresaw_ends_the_dispatcher_instead_of_losing_a_batch() -> None:
    async def main() -> None:
        world = World(nodes="a")

        async def behave(exchange: Exchange) -> Verdict:
            raise ZeroDivisionError

        world.behave = behave
        async with world.running():
            world.submit(jobs_of(1))
            await asyncio.sleep(1.0)

    with pytest.raises(ExceptionGroup) as caught:
        virtual_time.run(main())
    assert caught.group_contains(ZeroDivisionError)


def test_errors_run_again_as_often_as_the_app_allows() -> None:
    async def main() -> World:
        world = World(spec=replace(SPEC, retries=Retries(errors=2)))

        async def behave(exchange: Exchange) -> Verdict:
            exchange.answer(exchange.offsets, status=JobStatus.ERROR)
            return Verdict.DONE

        world.behave = behave
        async with world.running():
            world.submit(jobs_of(1))
            await all_out(world, 1)
        return world

    world = virtual_time.run(main())
    assert (world.outcomes, world.error_types) == ({0: Outcome.ERROR}, {0: "ValueError"})
    assert len(world.sent) == 3
