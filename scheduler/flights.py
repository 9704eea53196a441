"""A batch in flight, and what an answer takes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf

import pyarrow as pa

from rayline.jobs import Job
from rayline.wire import WHOLE_BATCH, AnswerHead, JobStatus
from scheduler.batch import Batch, Sent, Trail
from scheduler.router import Target


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """Where a batch was answered, `sent` being one of the attempts of its `trail`; jobs of one answer share one, told apart by
    identity. Times are monotonic seconds."""

    sent: Sent
    trail: Trail
    model_version: str | None
    dispatched: float
    answered: float
    execute_ms: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Jobs of one batch that an actor answered; all lists have the same length. `values` is None where there is no feature."""

    journey: Journey
    jobs: list[Job]
    statuses: list[int]
    values: list[bytes | None]
    error_types: list[str | None]
    error_messages: list[str | None]


class CalledOff(Enum):
    """Why a flight is ended from this side: its node left, or fell silent (of suspect batches, which have no rival), its actor is
    seen no more, or its rival answered first."""

    NODE_LEFT = auto()
    NODE_SILENT = auto()
    ACTOR_UNSEEN = auto()
    BEATEN = auto()


@dataclass(slots=True, eq=False)
class Flight:
    """One batch at one actor. Times are monotonic seconds.

    `unfinished` maps positions in the batch to the jobs that still wait for their answer, `errors` holds those that raised and
    run again. `rival` is the flight that runs some of the same jobs at the same time: the older one of two is hedged by the one
    that has `hedge` set. `alone`: nothing else runs beside it, and `begins` is what its actor said last (`AnswerHead.begins`).
    `paid`: it drew on the budget. `execute_seconds` is how long it ran, as its actor said last. `sent` is there once it
    is launched.
    """

    batch: Batch
    target: Target
    dispatched: float
    unfinished: dict[int, Job]
    errors: list[Job]
    late_at: float = inf
    execute_seconds: float | None = None
    paid: bool = False
    hedge: bool = False
    alone: bool = False
    begins: int | None = None
    rival: Flight | None = None
    task: asyncio.Task[None] | None = None
    unseen_since: float | None = None
    called_off: CalledOff | None = None
    sent: Sent = field(init=False)

    @property
    def budget_seconds(self) -> float:
        """The time that it had when it was sent."""
        return self.batch.last_expiry - self.dispatched

    @property
    def was_short(self) -> bool:
        """It had less time than a batch of its size may take before it counts as late."""
        return self.batch.last_expiry <= self.late_at

    def call_off(self, why: CalledOff) -> None:
        """End it; it lands as soon as its channel has let go."""
        if self.called_off is None and self.task is not None:
            self.called_off = why
            self.task.cancel()

    @property
    def trail(self) -> Trail:
        """Of the jobs that no later hedge runs as well."""
        trail = self.batch.trail
        return trail if self.rival is None or self.hedge else trail.without(self.rival.sent)

    def accused(self) -> Job | None:
        """The one unfinished job that ran when its actor was last heard of; None where that is not known."""
        if self.begins is None:
            return None
        if self.begins == WHOLE_BATCH:
            return next(iter(self.unfinished.values())) if len(self.unfinished) == 1 else None
        return self.unfinished.get(self.begins)

    def forget(self, jobs: Collection[Job]) -> None:
        """These are another flight's, or nobody's, from here on."""
        gone = set(jobs)
        for index in [index for index, job in self.unfinished.items() if job in gone]:
            del self.unfinished[index]

    def take(self, answer: pa.RecordBatch, head: AnswerHead, *, retry_errors: bool, now: float) -> Answers | None:
        """Take over the jobs of one answer that still wait for theirs, or None; errors that run again are put aside."""
        indexes: list[int] = answer.column(0).to_pylist()
        if head.begins is not None:
            self.begins = head.begins
        if head.execute_ms:
            self.execute_seconds = head.execute_ms / 1000
        if not indexes:
            return None
        statuses: list[int] = answer.column(1).to_pylist()
        values: list[bytes | None] = answer.column(2).to_pylist()
        if answer.column(3).null_count == len(indexes):
            types: list[str | None] = [None] * len(indexes)
            messages: list[str | None] = types
        else:
            types = answer.column(3).to_pylist()
            messages = answer.column(4).to_pylist()
        unfinished = self.unfinished
        if indexes == list(unfinished) and not (retry_errors and JobStatus.ERROR in statuses):
            # The usual answer: all that was waited for, in its order.
            jobs = list(unfinished.values())
            unfinished.clear()
            return Answers(self._journey(head, now), jobs, statuses, values, types, messages)
        kept: list[int] = []
        jobs = []
        for position, index in enumerate(indexes):
            job = unfinished.pop(index, None)
            if job is None:
                continue
            if retry_errors and statuses[position] == JobStatus.ERROR:
                self.errors.append(job)
                continue
            kept.append(position)
            jobs.append(job)
        if not jobs:
            return None
        if len(jobs) != len(indexes):
            statuses = [statuses[position] for position in kept]
            values = [values[position] for position in kept]
            types = [types[position] for position in kept]
            messages = [messages[position] for position in kept]
        return Answers(self._journey(head, now), jobs, statuses, values, types, messages)

    def _journey(self, head: AnswerHead, now: float) -> Journey:
        return Journey(
            sent=self.sent,
            trail=self.batch.trail,
            model_version=head.model_version,
            dispatched=self.dispatched,
            answered=now,
            execute_ms=head.execute_ms,
        )
