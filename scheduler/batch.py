"""A batch: what is dispatched as one, and what it has been through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from rayline.jobs import ContentType, Job
from rayline.suspects import Trial

ALWAYS: Final = float("-inf")
# A result tells of so many attempts.
MAX_TRIED: Final = 10

_numbers = itertools.count(1)


def next_batch_id(prefix: str) -> str:
    """An id that is unique in this process."""
    return f"{prefix}-{next(_numbers)}"


class Cause(StrEnum):
    """Why jobs of a batch are unfinished. REFUSED: no actor took them (it was full, or nobody listened)."""

    REFUSED = "refused"
    EVICTED = "evicted"
    KILLED = "killed"
    HUNG = "hung"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that died under a batch: the incarnation of its node (`cluster/name`), and when (monotonic seconds).

    `alone`: a single job was all that ran in that process. `at` is ALWAYS once the node is known to have outlived it.
    """

    node: str
    incarnation: int
    at: float
    alone: bool


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """Where a batch was sent; its jobs share one, told apart by identity. `size` counts its jobs.

    `pick` is why it went there, in the form of the result header.
    """

    cluster: str
    node: str
    app_version: str
    batch_id: str
    size: int
    pick: bytes | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An actor took a batch, and why that was not the end of it (None: it is not over)."""

    sent: Sent
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Trail:
    """How often an actor took some jobs, hedges included, and the last MAX_TRIED of these attempts, oldest first."""

    attempts: int = 0
    tried: tuple[Attempt, ...] = ()

    @property
    def last(self) -> Sent | None:
        """Where they were sent last; None: nowhere."""
        return self.tried[-1].sent if self.tried else None

    def sent_to(self, sent: Sent) -> Trail:
        """One more attempt."""
        return Trail(self.attempts + 1, (*self.tried, Attempt(sent))[-MAX_TRIED:])

    def ended(self, sent: Sent, cause: Cause) -> Trail:
        """That attempt is over; one that was REFUSED was none."""
        if cause is Cause.REFUSED:
            return self.without(sent)
        return Trail(self.attempts, tuple(Attempt(sent, cause) if one.sent is sent else one for one in self.tried))

    def without(self, sent: Sent) -> Trail:
        """That one was no attempt of these jobs."""
        return Trail(self.attempts - 1, tuple(one for one in self.tried if one.sent is not sent))


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs of one app and one content type.

    `trail` is where actors took it. `evictions`, `timeouts` and `errors` count what ended earlier attempts;
    `deaths` are the workers that died under it, `suspects` how many jobs it had at the first of these. A batch made of the rest
    of another one inherits them. `trial` is where an earlier owner of its partition ran it last. `again` is why its next
    dispatch is one more for its jobs (None: it is their first). `avoid` holds the nodes (`cluster/node`) it should not go to
    again. `first_expiry` and `last_expiry` are the monotonic seconds at which the first and the last of its jobs expire.
    """

    batch_id: str
    content_type: ContentType
    jobs: list[Job]
    size_bytes: int
    trail: Trail = field(default_factory=Trail)
    evictions: int = 0
    timeouts: int = 0
    errors: int = 0
    deaths: tuple[Death, ...] = ()
    suspects: int = 0
    trial: Trial | None = None
    again: Cause | None = None
    avoid: frozenset[str] = field(default_factory=frozenset)
    first_expiry: float = field(init=False)
    last_expiry: float = field(init=False)

    def __post_init__(self) -> None:
        expiries = [job.expires for job in self.jobs]
        self.first_expiry = min(expiries)
        self.last_expiry = max(expiries)

    @property
    def attempts(self) -> int:
        """How often an actor took it."""
        return self.trail.attempts

    @property
    def suspect(self) -> bool:
        """A worker died under it, or may have: it must run beside nothing else."""
        return bool(self.deaths) or self.trial is not None

    def part(self, jobs: Sequence[Job], *, batch_id: str | None = None, avoid: frozenset[str] | None = None) -> Batch:
        """A batch of some of these jobs, with the same history; without `batch_id` it stays the same batch."""
        return Batch(
            batch_id=self.batch_id if batch_id is None else batch_id,
            content_type=self.content_type,
            jobs=list(jobs),
            size_bytes=sum(len(job.payload) for job in jobs),
            trail=self.trail,
            evictions=self.evictions,
            timeouts=self.timeouts,
            errors=self.errors,
            deaths=self.deaths,
            suspects=self.suspects,
            trial=self.trial,
            again=self.again,
            avoid=self.avoid if avoid is None else avoid,
        )
