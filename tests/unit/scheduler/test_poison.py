"""How many workers one job can kill, whatever a busy machine loses or delays: against fake actors, under virtual time."""

from __future__ import annotations

import asyncio
from math import log2

import pytest

from rayline.app_spec import AppSpec, Call
from rayline.reports import NodeReport, NodeState
from rayline.results import Outcome
from rayline.wire import Verdict
from scheduler.batch import Death
from scheduler.retry import Fate
from scheduler.trials import NEWS_SECONDS, Trials
from scheduler.view import View
from tests.unit.scheduler import virtual_time
from tests.unit.scheduler.test_hedged_batches import PLACES, warm_up
from tests.unit.scheduler.world import Exchange, World, all_done, all_out, forever, jobs_of

BATCH_JOBS = 16
MOST_WORKERS = int(log2(BATCH_JOBS)) + 2
WHOLE = AppSpec("app", "1", "/", "m:f", call=Call.BATCH)
ONE_BY_ONE = AppSpec("app", "1", "/", "m:f", call=Call.JOB)


class Poisoned(World):
    """Nodes on which one job kills its process. In a suspect batch jobs run one by one where the app's do, and are announced."""

    def __init__(self, poison: int, spec: AppSpec, nodes: str = "abcd") -> None:
        super().__init__(nodes=nodes, spec=spec, places=PLACES)
        self.spec, self.poison, self.kills = spec, poison, 0
        self.behave = self.run_jobs
        if spec.call is Call.JOB:
            self.announce = lambda _: None

    async def run_jobs(self, exchange: Exchange) -> Verdict:
        if exchange.alone and self.spec.call is Call.JOB:
            for index, offset in enumerate(exchange.offsets):
                exchange.announce(index)
                if offset == self.poison:
                    return await self.die()
                exchange.answer([offset])
            return Verdict.DONE
        if self.poison in exchange.offsets:
            return await self.die()
        return await all_done(exchange)

    async def die(self) -> Verdict:
        await asyncio.sleep(0.01)
        self.kills += 1
        return Verdict.LOST


async def ended(world: Poisoned, expires: float = 60.0, before: int = 0) -> Poisoned:
    """All jobs of one batch, and what they became."""
    async with world.running():
        await asyncio.sleep(0.1)
        world.submit(jobs_of(BATCH_JOBS, expires=expires), size=BATCH_JOBS)
        await all_out(world, before + BATCH_JOBS)
    return world


def check(world: Poisoned) -> None:
    assert world.outcomes.pop(world.poison) is Outcome.QUARANTINED
    assert set(world.outcomes.values()) == {Outcome.OK}
    assert world.kills <= MOST_WORKERS


@pytest.mark.parametrize("poison", range(0, BATCH_JOBS, 5))
def test_where_jobs_run_one_by_one_the_second_death_names_the_job_and_the_third_condemns_it(poison: int) -> None:
    async def main() -> Poisoned:
        return await ended(Poisoned(poison, ONE_BY_ONE))

    world = virtual_time.run(main())
    assert world.kills == 3
    check(world)


def test_a_death_whose_job_was_not_announced_in_time_still_halves_the_batch() -> None:
    async def main() -> Poisoned:
        world = Poisoned(5, WHOLE)
        announce = world.announce
        lost: list[Exchange] = []

        def lose_the_first(exchange: Exchange) -> None:
            if world.poison in exchange.offsets and not lost:
                lost.append(exchange)
            else:
                announce(exchange)

        world.announce = lose_the_first
        return await ended(world)

    check(virtual_time.run(main()))


def test_silence_alone_does_not_acquit_before_news_would_have_come() -> None:
    """The beats of a busy machine's node are late, while its actors work on."""
    view = View()
    trials = Trials(view=view, prefix="t")
    view.apply([NodeReport("c", node, 1, 1, NodeState.READY, 1.0, beat=True) for node in "ab"], 0.0)
    death = Death("c/a", 1, 4.0, alone=True)
    for seq, now in enumerate((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0), 2):
        view.apply([NodeReport("c", "b", 1, seq, NodeState.READY, 1.0, beat=True)], now)
    assert view.suspect("c/a", 4.0)
    assert trials.fate(death, 4.0) is trials.fate(death, 4.0 + NEWS_SECONDS) is Fate.UNKNOWN
    assert trials.fate(death, 4.1 + NEWS_SECONDS) is Fate.LEFT
    view.apply([NodeReport("c", "a", 1, 2, NodeState.READY, 1.0, beat=True)], 9.0)
    assert trials.fate(death, 9.0) is Fate.OUTLIVED


def test_when_a_batch_and_its_hedge_both_kill_their_workers_both_count() -> None:
    async def main() -> Poisoned:
        world = Poisoned(5, WHOLE)
        async with world.running():
            await asyncio.sleep(0.1)
            before = await warm_up(world, size=BATCH_JOBS)
        second = asyncio.Event()
        poisoned: list[Exchange] = []

        async def behave(exchange: Exchange) -> Verdict:
            if world.poison in exchange.offsets:
                poisoned.append(exchange)
                if len(poisoned) == 1:
                    await second.wait()
                elif len(poisoned) == 2:
                    second.set()
                    # A call that has begun cannot be called off: its worker is as good as dead.
                    world.kills += 1
                    await asyncio.sleep(0.05)
                    return Verdict.LOST
                return await world.die()
            return await all_done(exchange)

        world.behave = behave
        await ended(world, before=before)
        for offset in [offset for offset in world.outcomes if offset >= BATCH_JOBS]:
            del world.outcomes[offset]
        return world

    check(virtual_time.run(main()))


@pytest.mark.parametrize("spec", [WHOLE, ONE_BY_ONE])
def test_suspects_on_a_silent_node_are_taken_away_and_never_run_twice_at_once(spec: AppSpec) -> None:
    async def main() -> Poisoned:
        world = Poisoned(5, spec)
        frozen: list[str] = []

        async def behave(exchange: Exchange) -> Verdict:
            if exchange.alone and not frozen:
                frozen.append(exchange.node)
                del world.beating[exchange.node]
                return await forever(exchange)
            return await world.run_jobs(exchange)

        world.behave = behave
        await ended(world)
        assert world.dispatcher.statistics().hedged == 0
        assert world.cancelled
        return world

    check(virtual_time.run(main()))
