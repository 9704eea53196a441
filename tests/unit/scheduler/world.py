"""Nodes under virtual time that do what a test says, around a dispatcher."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import pyarrow as pa

from rayline.app_spec import AppSpec
from rayline.jobs import Job
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.results import Outcome
from rayline.wire import ANSWER_SCHEMA, WHOLE_BATCH, AnswerHead, BatchHead, JobStatus, Verdict
from scheduler.batch import Trail
from scheduler.budget import RetryBudget
from scheduler.dispatcher import Answers, Dispatcher, new_batch
from scheduler.router import Router
from scheduler.tracing import BatchTraces
from scheduler.view import View
from scheduler.weights import StaticWeights
from tests.unit.ingest.jobs import job
from workers.channel import OnChunk

SLOTS = 3
SPEC = AppSpec("app", "1", "/", "m:f")


class World:
    """Nodes, what their actors do, and what came out. `behave` is called for each batch, `announce` before it for those that must
    be alone; `places`: cluster and zone."""

    def __init__(
        self,
        *,
        nodes: str = "abc",
        spec: AppSpec = SPEC,
        places: Mapping[str, tuple[str, str | None]] | None = None,
        budget: RetryBudget | None = None,
        traces: BatchTraces | None = None,
    ) -> None:
        self.stood_seconds = 0.0  # for how long the dispatcher's process stood still, while the world went on
        self.view, self.router = View(), Router(app="app", policy=StaticWeights())
        self.dispatcher = Dispatcher(
            spec=spec,
            view=self.view,
            router=self.router,
            sink=self,
            channels=lambda endpoint: FakeChannel(endpoint, self),
            batch_prefix="t",
            budget=budget,
            traces=traces,
            clock=self.now,
        )
        self.places = places or {}
        self.attempts: dict[int, int] = {}
        self.trails: dict[int, Trail] = {}
        self.cancelled: list[tuple[str, list[int]]] = []
        self.beating = dict.fromkeys(nodes, 1)  # incarnation of each node that sends beats
        self.behave: Callable[[Exchange], Awaitable[Verdict]] = all_done
        self.announce: Callable[[Exchange], None] = lambda exchange: exchange.announce(WHOLE_BATCH)
        self.ended_at: dict[int, float] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.error_types: dict[int, str | None] = {}
        self.nodes_of: dict[int, str] = {}
        self.sent: list[tuple[str, list[int]]] = []
        self.in_flight: Counter[str] = Counter()
        self.seq = 0

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.stood_seconds

    def answered(self, answers: Answers) -> None:
        for one, status, error_type in zip(answers.jobs, answers.statuses, answers.error_types, strict=True):
            outcome = {JobStatus.OK: Outcome.OK, JobStatus.ERROR: Outcome.ERROR}[JobStatus(status)]
            self._end(one, outcome, error_type)
            self.nodes_of[one.offset] = answers.journey.sent.node
            self.attempts[one.offset] = answers.journey.trail.attempts
            self.trails[one.offset] = answers.journey.trail

    def ended(self, jobs: list[Job], outcome: Outcome, error_type: str, error_message: str, trail: Trail) -> None:
        for one in jobs:
            self._end(one, outcome, error_type)
            self.trails[one.offset] = trail

    def _end(self, one: Job, outcome: Outcome, error_type: str | None) -> None:
        assert one.offset not in self.outcomes, "a job came out twice"
        self.outcomes[one.offset], self.error_types[one.offset] = outcome, error_type
        self.ended_at[one.offset] = self.now()

    def beat(self, *, state: NodeState = NodeState.READY, nodes: Iterable[str] | None = None) -> None:
        self.seq += 1
        reports = []
        for node in self.beating if nodes is None else nodes:
            incarnation = self.beating[node]
            actor = ActorEndpoint("app", "1", "x", "h", 1, SLOTS, f"{node}.{incarnation}")
            cluster, zone = self.places.get(node, ("c", None))
            reports.append(NodeReport(cluster, node, incarnation, self.seq, state, 1.0, zone=zone, actors=(actor,)))
        self.view.apply(reports, self.now())
        self.dispatcher.refresh()

    async def _beats(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(1.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(self._beats()), tasks.create_task(self.dispatcher.run())]
            try:
                yield
            finally:
                for worker in workers:
                    worker.cancel()

    def submit(self, jobs: list[Job], size: int = 8) -> None:
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            self.dispatcher.submit([new_batch(part, len(part), "t")])


class Exchange:
    """One batch at an actor."""

    def __init__(
        self, world: World, node: str, batch: pa.RecordBatch, head: BatchHead, on_chunk: OnChunk, seconds: float
    ) -> None:
        self.world, self.node, self.seconds = world, node, seconds
        self.offsets = [int(payload) for payload in batch.column(0).to_pylist()]
        self.alone = head.alone
        self._head, self._on_chunk = head, on_chunk

    def announce(self, begins: int) -> None:
        self.answer((), begins=begins)

    def answer(self, offsets: Iterable[int], *, status: JobStatus = JobStatus.OK, begins: int | None = None) -> None:
        found = [self.offsets.index(offset) for offset in offsets]
        good = status is JobStatus.OK
        columns = {
            "index": found,
            "status": [status] * len(found),
            "value": [b"f" if good else None] * len(found),
            "error_type": [None if good else "ValueError"] * len(found),
            "error_message": [None if good else "no"] * len(found),
        }
        self._on_chunk(
            pa.RecordBatch.from_pydict(columns, schema=ANSWER_SCHEMA),
            AnswerHead(self._head.batch, False, Verdict.DONE, begins=begins),
        )


class FakeChannel:
    """An actor in this process: does what its world says."""

    slots = SLOTS

    def __init__(self, endpoint: ActorEndpoint, world: World) -> None:
        self._instance, self._world = endpoint.instance, world
        self._open = True

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        world = self._world
        exchange = Exchange(world, self._instance.partition(".")[0], batch, head, on_chunk, timeout_seconds)
        assert self._open, "sent into a closed channel"
        assert not set(exchange.offsets) & set(world.outcomes), "a finished job was sent again"
        world.sent.append((exchange.node, exchange.offsets))
        world.in_flight[self._instance] += 1
        assert world.in_flight[self._instance] <= SLOTS
        if head.alone:
            world.announce(exchange)
        try:
            async with asyncio.timeout(timeout_seconds):
                verdict = await world.behave(exchange)
        except TimeoutError:
            verdict = Verdict.TIMEOUT
        except asyncio.CancelledError:
            world.cancelled.append((exchange.node, exchange.offsets))
            raise
        finally:
            world.in_flight[self._instance] -= 1
        return AnswerHead(head.batch, True, verdict)

    def close(self) -> None:
        self._open = False


async def all_done(exchange: Exchange) -> Verdict:
    await asyncio.sleep(0.01)
    exchange.answer(exchange.offsets)
    return Verdict.DONE


async def forever(_: Exchange) -> Verdict:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def jobs_of(count: int, *, expires: float = 10.0) -> list[Job]:
    return [job(offset, payload=b"%d" % offset, expires=expires) for offset in range(count)]


async def all_out(world: World, count: int) -> None:
    while len(world.outcomes) < count:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.05)
