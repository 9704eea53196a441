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


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs of one app and one content type.

    `attempts` counts how often an actor took it. `evictions`, `timeouts` and `errors` count what ended earlier attempts;
    `deaths` are the workers that died under it, `suspects` how many jobs it had at the first of these. A batch made of the rest
    of another one inherits them. `trial` is where an earlier owner of its partition ran it last. `again` is why its next
    dispatch is one more for its jobs (None: it is their first). `avoid` holds the nodes (`cluster/node`) it should not go to
    again. `first_expiry` and `last_expiry` are the monotonic seconds at which the first and the last of its jobs expire.
    """

    batch_id: str
    content_type: ContentType
    jobs: list[Job]
    size_bytes: int
    attempts: int = 0
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
            attempts=self.attempts,
            evictions=self.evictions,
            timeouts=self.timeouts,
            errors=self.errors,
            deaths=self.deaths,
            suspects=self.suspects,
            trial=self.trial,
            again=self.again,
            avoid=self.avoid if avoid is None else avoid,
        )
