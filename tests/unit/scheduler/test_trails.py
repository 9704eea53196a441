"""What a job that ended tells of where it was sent: of one that nobody answered, too; against fake actors, under virtual time."""

from __future__ import annotations

import asyncio

import pytest

from rayline.app_spec import AppSpec, Retries
from rayline.reports import NodeState
from rayline.results import Outcome
from rayline.wire import Verdict
from scheduler.batch import MAX_TRIED, Cause, Sent, Trail
from tests.unit.scheduler import virtual_time
from tests.unit.scheduler.test_hedged_batches import PLACES, warm_up
from tests.unit.scheduler.test_poison import ONE_BY_ONE, Poisoned, ended
from tests.unit.scheduler.world import SPEC, Exchange, World, all_done, all_out, forever, jobs_of

ONE = 1


async def alone(world: World, *, expires: float = 60.0) -> Trail:
    """What became of one job."""
    async with world.running():
        await asyncio.sleep(0.1)
        world.submit(jobs_of(ONE, expires=expires))
        await all_out(world, ONE)
    return world.trails[0]


def places(trail: Trail) -> list[tuple[str, Cause | None]]:
    return [(one.sent.node, one.cause) for one in trail.tried]


def test_a_quarantined_job_tells_of_each_worker_that_died_under_it() -> None:
    async def main() -> Poisoned:
        return await ended(Poisoned(5, ONE_BY_ONE))

    world = virtual_time.run(main())
    assert world.outcomes[5] is Outcome.QUARANTINED
    trail = world.trails[5]
    assert (trail.attempts, len(trail.tried)) == (world.kills, world.kills)
    assert {one.cause for one in trail.tried} == {Cause.KILLED}
    assert trail.last is not None
    assert (trail.last.cluster, trail.last.size, trail.last.pick is not None) == (PLACES[trail.last.node][0], ONE, True)
    assert len({one.sent.batch_id for one in trail.tried}) == world.kills


def test_a_job_whose_deadline_passes_while_it_runs_tells_where_that_was() -> None:
    async def main() -> World:
        world = World(nodes="a")
        world.behave = forever
        await alone(world, expires=3.0)
        return world

    world = virtual_time.run(main())
    assert world.outcomes[0] is Outcome.DEADLINE_EXCEEDED
    assert (world.trails[0].attempts, places(world.trails[0])) == (1, [("a", None)])


def test_a_job_whose_nodes_are_evicted_until_the_budget_is_used_up_tells_of_each() -> None:
    async def main() -> World:
        world = World(nodes="abcd", spec=AppSpec("app", "1", "/", "m:f", retries=Retries(evictions=2)))

        async def evicted(exchange: Exchange) -> Verdict:
            world.beat(state=NodeState.DRAINING, nodes=[exchange.node])
            return Verdict.DRAINING

        world.behave = evicted
        await alone(world)
        return world

    world = virtual_time.run(main())
    assert world.error_types[0] == "rayline.EvictionsExceeded"
    assert places(world.trails[0]) == [(node, Cause.EVICTED) for node, _ in world.sent]
    assert world.trails[0].attempts == len(world.sent) == 3


def test_a_job_that_hangs_until_its_budget_is_used_up_tells_of_each_call() -> None:
    async def main() -> World:
        world = World(nodes="ab")

        async def hung(_: Exchange) -> Verdict:
            return Verdict.TIMEOUT

        world.behave = hung
        await alone(world)
        return world

    world = virtual_time.run(main())
    assert world.error_types[0] == "rayline.ExecutionTimeout"
    assert [cause for _, cause in places(world.trails[0])] == [Cause.HUNG] * (SPEC.retries.timeouts + 1)


@pytest.mark.parametrize("refused", [False, True])
def test_a_job_that_no_actor_took_was_nowhere(refused: bool) -> None:
    async def main() -> World:
        world = World(nodes="a" if refused else "")

        async def busy(_: Exchange) -> Verdict:
            await asyncio.sleep(0.05)
            return Verdict.BUSY

        world.behave = busy
        await alone(world, expires=1.0)
        return world

    world = virtual_time.run(main())
    assert world.outcomes[0] is Outcome.DEADLINE_EXCEEDED
    assert bool(world.sent) is refused
    assert (world.trails[0], world.trails[0].last) == (Trail(), None)


def test_an_answer_after_an_eviction_tells_of_both_places() -> None:
    async def main() -> World:
        world = World(nodes="ab")

        async def first_evicted(exchange: Exchange) -> Verdict:
            return Verdict.DRAINING if len(world.sent) == 1 else await all_done(exchange)

        world.behave = first_evicted
        await alone(world)
        return world

    world = virtual_time.run(main())
    (first, _), (second, _) = world.sent
    assert world.outcomes[0] is Outcome.OK
    assert places(world.trails[0]) == [(first, Cause.EVICTED), (second, None)]
    assert world.nodes_of[0] == second


def test_what_a_hedge_answers_tells_of_the_flight_that_is_overtaken() -> None:
    async def main() -> World:
        world = World(nodes="ac", places=PLACES)
        async with world.running():
            await asyncio.sleep(0.1)
            before = await warm_up(world, size=ONE)

            async def first_forever(exchange: Exchange) -> Verdict:
                return await (forever(exchange) if len(world.sent) == 1 else all_done(exchange))

            world.behave = first_forever
            world.submit(jobs_of(ONE, expires=60.0))
            await all_out(world, before + ONE)
        return world

    world = virtual_time.run(main())
    assert places(world.trails[0]) == [(world.sent[0][0], None), (world.sent[1][0], None)]
    assert world.nodes_of[0] == world.sent[1][0]


def test_of_many_attempts_the_last_are_kept_and_all_are_counted() -> None:
    trail = Trail()
    for number in range(2 * MAX_TRIED):
        sent = Sent("c", f"n{number}", "1", "b", 1)
        trail = trail.sent_to(sent).ended(sent, Cause.EVICTED)
    assert (trail.attempts, len(trail.tried), trail.last) == (2 * MAX_TRIED, MAX_TRIED, sent)
    assert trail.sent_to(Sent("c", "n", "1", "b", 1)).ended(sent, Cause.REFUSED).attempts == 2 * MAX_TRIED
