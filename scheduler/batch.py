"""A batch: what is dispatched as one, and what it has been through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from rayline.jobs import ContentType, Job

NodeIncarnation = tuple[str, int]

_numbers = itertools.count(1)


def next_batch_id(prefix: str) -> str:
    """An id that is unique in this process."""
    return f"{prefix}-{next(_numbers)}"


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs of one app and one content type.

    `attempts` counts dispatches. `evictions`, `timeouts` and `errors` count what ended earlier ones; `blamed` names the node
    incarnations whose worker died while one job was alone in the batch. A batch made of the rest of another one inherits
    them. `avoid` holds the nodes (`cluster/node`) it should not go to again. `first_expiry` and `last_expiry` are the
    monotonic seconds at which the first and the last of its jobs expire.
    """

    batch_id: str
    content_type: ContentType
    jobs: list[Job]
    size_bytes: int
    attempts: int = 0
    evictions: int = 0
    timeouts: int = 0
    errors: int = 0
    blamed: tuple[NodeIncarnation, ...] = ()
    avoid: frozenset[str] = field(default_factory=frozenset)
    first_expiry: float = field(init=False)
    last_expiry: float = field(init=False)

    def __post_init__(self) -> None:
        expiries = [job.expires for job in self.jobs]
        self.first_expiry = min(expiries)
        self.last_expiry = max(expiries)

    def part(self, jobs: Sequence[Job], *, batch_id: str, avoid: frozenset[str] | None = None) -> Batch:
        """A batch of some of these jobs, with the same history."""
        return Batch(
            batch_id=batch_id,
            content_type=self.content_type,
            jobs=list(jobs),
            size_bytes=sum(len(job.payload) for job in jobs),
            attempts=self.attempts,
            evictions=self.evictions,
            timeouts=self.timeouts,
            errors=self.errors,
            blamed=self.blamed,
            avoid=self.avoid if avoid is None else avoid,
        )
