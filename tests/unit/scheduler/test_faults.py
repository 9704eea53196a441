"""Dispatcher, router and view against pods that die, freeze, drain and slow down at random, by seed, under virtual time."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log2
from random import Random

import pyarrow as pa
import pytest

from rayline.app_spec import AppSpec, Call, Retries
from rayline.jobs import Job
from rayline.reports import NodeState
from rayline.results import Outcome
from rayline.wire import AnswerHead, BatchHead, JobStatus
from scheduler.batch import Trail
from scheduler.budget import EXTRA_SHARE, RESERVE_REFILL_SECONDS, RetryBudget
from scheduler.dispatcher import SWEEP_SECONDS, Answers, Dispatcher, new_batch
from scheduler.router import Router
from scheduler.statistics import DispatchStatistics
from scheduler.view import SUSPECT_AFTER_SECONDS, View
from scheduler.weights import StaticWeights
from tests.unit.ingest.jobs import job
from tests.unit.scheduler import virtual_time
from tests.unit.scheduler.pods import Fleet, Pod, PodChannel
from workers.channel import OnChunk

SEEDS = int(os.environ.get("RAYLINE_FAULT_SEEDS", "150"))
SLA_SECONDS = 10.0
# From the last beat that was heard to the next look at the view.
LOOK_SECONDS = 0.6
BATCH_JOBS = 16


@dataclass
class Run:
    """What came of one seed."""

    seed: int
    fleet: Fleet
    reserve: int
    expires: dict[int, float] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    ended_at: dict[int, float] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    statistics: DispatchStatistics | None = None
    seconds: float = 0.0

    def answered(self, answers: Answers) -> None:
        for one, status in zip(answers.jobs, answers.statuses, strict=True):
            self._end(one, Outcome.OK if status == JobStatus.OK else Outcome.ERROR, answers.journey.trail.attempts)

    def ended(self, jobs: list[Job], outcome: Outcome, error_type: str, error_message: str, trail: Trail) -> None:
        for one in jobs:
            self._end(one, outcome, trail.attempts)

    def _end(self, one: Job, outcome: Outcome, attempts: int) -> None:
        assert one.offset not in self.outcomes, "a job came out twice"
        self.outcomes[one.offset], self.attempts[one.offset] = outcome, attempts
        self.ended_at[one.offset] = asyncio.get_running_loop().time()


class Watched(PodChannel):
    """Checks that nothing is sent where nothing should be."""

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        pod, now = self._actor.pod, asyncio.get_running_loop().time()
        silent = 0.0 if pod.silent_since is None else now - pod.silent_since
        # Silence of everybody is our own deafness: the last view stays in force, and for a moment after.
        deaf = now - self._fleet.nobody_heard < SUSPECT_AFTER_SECONDS
        assert silent < SUSPECT_AFTER_SECONDS + LOOK_SECONDS or deaf, "sent to a silent node"
        return await super().exchange(batch, head, timeout_seconds=timeout_seconds, on_chunk=on_chunk)


async def play(seed: int) -> Run:
    numbers = Random(seed)
    count = numbers.randint(1, 160)

    def some(most: int) -> set[int]:
        return set(numbers.sample(range(count), min(count, numbers.randint(0, most))))

    fleet = Fleet(
        numbers=numbers,
        pods=numbers.randint(2, 6),
        poison=some(numbers.choice([0, 0, 2])),
        hanging=some(numbers.choice([0, 0, 1])),
        raising=some(2),
        one_by_one=numbers.choice([False, True]),
    )
    run = Run(seed, fleet, reserve=numbers.choice([BATCH_JOBS, 256]))
    loop = asyncio.get_running_loop()
    view, router = View(), Router(app="app", policy=StaticWeights())
    dispatcher = Dispatcher(
        spec=AppSpec(
            "app",
            "1",
            "/",
            "m:f",
            call=Call.JOB if fleet.one_by_one else Call.BATCH,
            retries=Retries(errors=numbers.choice([0, 1])),
        ),
        view=view,
        router=router,
        sink=run,
        channels=lambda endpoint: Watched(endpoint, fleet),
        batch_prefix="t",
        budget=RetryBudget(now=0.0, reserve_jobs=run.reserve),
        clock=loop.time,
    )
    seq = 0

    def tell(pods: list[Pod]) -> None:
        nonlocal seq
        seq += 1
        view.apply([pod.report(seq) for pod in pods], loop.time())
        dispatcher.refresh()

    async def beats() -> None:
        while True:
            heard = [pod for pod in fleet.pods if pod.silent_since is None]
            if not heard:
                fleet.nobody_heard = loop.time()
            tell(heard)
            await asyncio.sleep(0.5)
            dispatcher.refresh()
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(beats()), tasks.create_task(dispatcher.run())]
        faults = [tasks.create_task(fault(run, numbers, tell)) for _ in range(numbers.randint(0, 5))]
        for start in range(0, count, BATCH_JOBS):
            await asyncio.sleep(numbers.choice([0.0, 0.0, 0.3, 1.0]))
            jobs = [
                job(n, payload=b"%d" % n, expires=loop.time() + SLA_SECONDS) for n in range(start, min(count, start + BATCH_JOBS))
            ]
            run.expires |= {one.offset: one.expires for one in jobs}
            dispatcher.submit([new_batch(jobs, len(jobs), "t")])
        await dispatcher.wait_quiet()
        run.statistics, run.seconds = dispatcher.statistics(), loop.time()
        assert dispatcher.in_flight == dispatcher.queued == 0
        for task in [*workers, *faults]:
            task.cancel()
    return run


async def fault(run: Run, numbers: Random, tell: Callable[[list[Pod]], None]) -> None:
    """One thing that happens to one pod, or to half of them, or to all."""
    fleet, loop = run.fleet, asyncio.get_running_loop()
    await asyncio.sleep(numbers.uniform(0, 8))
    pods = numbers.sample(fleet.pods, numbers.choice([1, 1, 1, len(fleet.pods) // 2, len(fleet.pods)]))
    kind = numbers.choice(["crash", "kill", "notice", "freeze", "slow", "deaf"])
    lasting = numbers.uniform(0.5, 8)
    run.faults[kind] += len(pods)
    for pod in pods:
        match kind:
            case "crash":
                fleet.crash(pod)
            case "kill":
                pod.up, pod.silent_since = False, loop.time()
                fleet.end_actor(pod)
            case "notice":
                pod.state = NodeState.DRAINING
                tell([pod])
            case "freeze":
                pod.frozen, pod.silent_since = True, loop.time()
            case "slow":
                pod.slowness = 8.0
            case "deaf":
                pod.silent_since = loop.time()
    await asyncio.sleep(lasting)
    for pod in pods:
        match kind:
            case "kill" | "notice":
                fleet.replace(pod)
            case "freeze" | "deaf":
                pod.frozen = False
                pod.silent_since = None if pod.up else pod.silent_since
            case "slow":
                pod.slowness = 1.0


def check(run: Run) -> None:
    fleet, statistics = run.fleet, run.statistics
    assert statistics is not None
    assert sorted(run.outcomes) == sorted(run.expires), "a job did not come out"
    late = {n: run.ended_at[n] - run.expires[n] for n in run.outcomes if run.ended_at[n] > run.expires[n] + 2 * SWEEP_SECONDS}
    assert not late, "a job came out late"
    quarantined = {n for n, outcome in run.outcomes.items() if outcome is Outcome.QUARANTINED}
    # A process that dies by itself under a job, twice, cannot be told from one that the job killed.
    assert quarantined <= fleet.poison or run.faults["crash"], "an innocent was quarantined"
    assert all(run.outcomes[n] is not Outcome.OK for n in fleet.poison | fleet.hanging | fleet.raising)
    # A death on a node that then left or fell silent proves nothing.
    unproven = run.faults.total() - run.faults["crash"] - run.faults["slow"]
    for poison, kills in fleet.kills.items():
        assert kills <= ceil(log2(BATCH_JOBS)) + 2 + unproven, f"job {poison} killed {kills} workers"
    extra = sum(statistics.again.values()) + statistics.hedged
    allowed = EXTRA_SHARE * statistics.first + run.reserve * (1 + run.seconds / RESERVE_REFILL_SECONDS)
    assert extra <= allowed + 1e-6, "more extra load than the budget allows"


@pytest.mark.parametrize("block", range(10))
def test_every_job_ends_once_in_time_and_justly_whatever_becomes_of_its_pods(block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        try:
            check(virtual_time.run(play(seed)))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
