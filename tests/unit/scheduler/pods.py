"""Pods under virtual time: what their actors do with batches, and what becomes of them. For randomised runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pyarrow as pa

from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.wire import ANSWER_SCHEMA, WHOLE_BATCH, AnswerHead, BatchHead, JobStatus, Verdict
from workers.channel import OnChunk

SLOTS = 3
RESTART_SECONDS = 1.0
HANG_SECONDS = 2.0


class _DiedError(Exception):
    pass


@dataclass(eq=False)
class Actor:
    """One process. Runs one batch at a time; a batch that must be alone keeps others out."""

    pod: Pod
    instance: str
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    alone: bool = False

    async def work(self, seconds: float) -> None:
        """Seconds of this process's own time, which stands still while its pod is frozen."""
        while True:
            while self.pod.frozen:
                await self._or_death(0.05)
            await self._or_death(seconds * self.pod.slowness)
            if not self.pod.frozen:
                return
            seconds = 0.0

    async def _or_death(self, seconds: float) -> None:
        if not self.dead.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self.dead.wait()
            except TimeoutError:
                return
        raise _DiedError


@dataclass(eq=False)
class Pod:
    """One node; `silent_since` is when its beats stopped."""

    cluster: str
    name: str
    born: int
    incarnation: int = 1
    state: NodeState = NodeState.READY
    frozen: bool = False
    up: bool = True
    slowness: float = 1.0
    silent_since: float | None = None
    actor: Actor | None = None

    def report(self, seq: int) -> NodeReport:
        actors = () if self.actor is None else (endpoint_of(self.actor),)
        return NodeReport(
            self.cluster, self.name, self.incarnation, seq, self.state, 1.0, zone=f"z{self.born % 2}", actors=actors, beat=True
        )


def endpoint_of(actor: Actor) -> ActorEndpoint:
    return ActorEndpoint("app", "1", "x", "h", 1, SLOTS, actor.instance)


class Fleet:
    """All pods, and what the function does: `poison` jobs kill the process, `hanging` ones block it, `raising` ones fail.

    `one_by_one`: actors tell which job begins in a suspect batch.
    """

    def __init__(
        self, *, numbers: Random, pods: int, poison: set[int], hanging: set[int], raising: set[int], one_by_one: bool
    ) -> None:
        self.numbers = numbers
        self.poison, self.hanging, self.raising = poison, hanging, raising
        self.one_by_one = one_by_one
        self.pods = [Pod(f"c{n % 2}", f"p{n}", n) for n in range(pods)]
        self.actors: dict[str, Actor] = {}
        self.kills: Counter[int] = Counter()
        self.running: Counter[int] = Counter()
        self.service = numbers.choice([0.001, 0.02, 0.1])
        self.nobody_heard = -10.0
        self._births = 0
        for pod in self.pods:
            self.start_actor(pod)

    def start_actor(self, pod: Pod) -> None:
        self._births += 1
        pod.actor = Actor(pod, f"{pod.name}.{self._births}")
        self.actors[pod.actor.instance] = pod.actor

    def end_actor(self, pod: Pod) -> None:
        if pod.actor is not None:
            pod.actor.dead.set()
            pod.actor = None

    def crash(self, pod: Pod) -> None:
        """Its actor dies and comes back."""
        incarnation = pod.incarnation
        self.end_actor(pod)

        def restart() -> None:
            if pod.up and pod.incarnation == incarnation and pod.actor is None:
                self.start_actor(pod)

        asyncio.get_running_loop().call_later(RESTART_SECONDS, restart)

    def replace(self, pod: Pod) -> None:
        """A new pod in its place."""
        self.end_actor(pod)
        pod.incarnation += 1
        pod.up, pod.frozen, pod.slowness, pod.state, pod.silent_since = True, False, 1.0, NodeState.READY, None
        self.start_actor(pod)


class PodChannel:
    """The way to one actor."""

    slots = SLOTS

    def __init__(self, endpoint: ActorEndpoint, fleet: Fleet) -> None:
        self._fleet, self._actor = fleet, fleet.actors[endpoint.instance]

    def close(self) -> None:
        pass

    async def exchange(self, batch: pa.RecordBatch, head: BatchHead, *, timeout_seconds: float, on_chunk: OnChunk) -> AnswerHead:
        jobs = [int(payload) for payload in batch.column(0).to_pylist()]
        self._fleet.running.update(jobs)
        assert all(self._fleet.running[job] <= 2 for job in jobs), "more than one hedge at a time"
        try:
            async with asyncio.timeout(timeout_seconds):
                verdict = await self._run(jobs, head, on_chunk)
        except TimeoutError:
            verdict = Verdict.TIMEOUT
        except _DiedError:
            verdict = Verdict.LOST
        finally:
            self._fleet.running.subtract(jobs)
        return AnswerHead(head.batch, True, verdict)

    async def _run(self, jobs: list[int], head: BatchHead, on_chunk: OnChunk) -> Verdict:
        actor, fleet = self._actor, self._fleet
        if actor.dead.is_set():
            return Verdict.UNREACHED
        await actor.work(0.001)
        if actor.pod.state is not NodeState.READY:
            return Verdict.DRAINING
        if actor.alone:
            return Verdict.BUSY
        actor.alone = head.alone
        try:
            async with actor.turn:
                if head.alone and not fleet.one_by_one:
                    on_chunk(_answer([], JobStatus.OK), AnswerHead(head.batch, False, Verdict.DONE, begins=WHOLE_BATCH))
                elif actor.alone and not head.alone:
                    return Verdict.BUSY
                return await self._call(jobs, head, on_chunk, fleet)
        finally:
            actor.alone = actor.alone and not head.alone

    async def _call(self, jobs: list[int], head: BatchHead, on_chunk: OnChunk, fleet: Fleet) -> Verdict:
        actor = self._actor
        for index, job in enumerate(jobs):
            if actor.pod.state is not NodeState.READY:
                return Verdict.DRAINING
            if head.alone and fleet.one_by_one:
                on_chunk(_answer([], JobStatus.OK), AnswerHead(head.batch, False, Verdict.DONE, begins=index))
            await actor.work(fleet.service)
            if job in fleet.poison:
                fleet.kills[job] += 1
                fleet.crash(actor.pod)
                raise _DiedError
            if job in fleet.hanging:
                await actor.work(HANG_SECONDS)
                return Verdict.TIMEOUT
            status = JobStatus.ERROR if job in fleet.raising else JobStatus.OK
            on_chunk(_answer([index], status), AnswerHead(head.batch, False, Verdict.DONE))
        return Verdict.DONE


def _answer(indexes: list[int], status: JobStatus) -> pa.RecordBatch:
    good = status is JobStatus.OK
    columns = {
        "index": indexes,
        "status": [status] * len(indexes),
        "value": [b"f" if good else None] * len(indexes),
        "error_type": [None if good else "ValueError"] * len(indexes),
        "error_message": [None if good else "no"] * len(indexes),
    }
    return pa.RecordBatch.from_pydict(columns, schema=ANSWER_SCHEMA)
