"""What a dispatcher is connected to, as it sees it."""

from __future__ import annotations

from typing import Protocol

from rayline.jobs import Job
from rayline.results import Outcome
from scheduler.batch import Batch, Trail
from scheduler.flights import Answers
from scheduler.router import Target


class Sink(Protocol):
    """Where ended jobs go."""

    def answered(self, answers: Answers) -> None:
        """An actor answered these jobs."""

    def ended(self, jobs: list[Job], outcome: Outcome, error_type: str, error_message: str, trail: Trail) -> None:
        """These jobs ended without an answer of their own; `trail`: where they were sent."""


class SuspectMemory(Protocol):
    """Outlives this process, so that a poison job does not begin anew with each owner of its partition."""

    def note(self, batch: Batch) -> None:
        """A worker died under this batch."""

    async def remember(self, batch: Batch, target: Target) -> None:
        """This batch, under which workers died, is about to run there."""
