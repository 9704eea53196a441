"""When jobs become a batch: by count, by bytes, after a linger, or when the slack of a deadline is used up. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from rayline.app_spec import Batching
from rayline.jobs import ContentType, Job

SLACK_MARGIN_SECONDS: Final = 0.25


@dataclass(slots=True)
class _Open:
    """A batch that still takes jobs, begun at `opened_at`; at `close_at` it must go (monotonic seconds)."""

    opened_at: float
    jobs: list[Job] = field(default_factory=list)
    size_bytes: int = 0
    close_at: float = float("inf")


@dataclass(frozen=True, slots=True)
class Closed:
    """A batch that is complete: one content type, at least one job."""

    jobs: list[Job]
    size_bytes: int


class Batcher:
    """Groups jobs by content type and closes batches.

    Owns the open batches. Does not own batches that it closed, nor the measurement of the service time it is told.
    Invariants: no batch has more than `max_jobs` jobs; none exceeds `max_bytes` unless it is a single job; a job leaves at
    most `linger_ms` after it arrived, and before its deadline minus the service time where it came early enough.
    """

    def __init__(self, batching: Batching) -> None:
        self._batching = batching
        self._open: dict[ContentType, _Open] = {}
        self._service_seconds = 0.0
        self._slack_margin_seconds = SLACK_MARGIN_SECONDS

    def set_slack_margin(self, seconds: float) -> None:
        """A batch goes so long before a deadline would need it to, those that are open as well: look at `next_due`."""
        self._slack_margin_seconds = seconds
        self._reconsider()

    def update(self, batching: Batching) -> None:
        """New limits, for batches that are open as well: look at `next_due`."""
        self._batching = batching
        self._reconsider()

    def expect_service(self, seconds: float) -> None:
        """How long a batch takes from dispatch to answer, as measured."""
        self._service_seconds = seconds

    def add(self, job: Job, now: float) -> Closed | None:
        """Take a job at `now` (monotonic seconds); returns the batch that this closes, if any."""
        batching = self._batching
        size = len(job.payload)
        batch = self._open.get(job.content_type)
        closed = None
        if batch is None:
            batch = self._open[job.content_type] = _Open(now)
        elif batch.size_bytes + size > batching.max_bytes:
            closed = Closed(batch.jobs, batch.size_bytes)
            batch = self._open[job.content_type] = _Open(now)
        batch.jobs.append(job)
        batch.size_bytes += size
        latest = self._latest(now, job.expires)
        if latest < batch.close_at:
            batch.close_at = latest
        if self._is_full(batch):
            if closed is None:
                del self._open[job.content_type]
                return Closed(batch.jobs, batch.size_bytes)
            batch.close_at = now
        return closed

    def due(self, now: float) -> list[Closed]:
        """Batches that must go at `now` (monotonic seconds)."""
        kinds = [kind for kind, batch in self._open.items() if batch.close_at <= now]
        return [Closed(batch.jobs, batch.size_bytes) for batch in (self._open.pop(kind) for kind in kinds)]

    def next_due(self) -> float | None:
        """When `due` has something (monotonic seconds), or None with nothing open."""
        return min((batch.close_at for batch in self._open.values()), default=None)

    def _reconsider(self) -> None:
        """When each open batch has to go, by the limits that hold now."""
        for batch in self._open.values():
            expires = min(job.expires for job in batch.jobs)
            batch.close_at = batch.opened_at if self._is_full(batch) else self._latest(batch.opened_at, expires)

    def _is_full(self, batch: _Open) -> bool:
        return len(batch.jobs) >= self._batching.max_jobs or batch.size_bytes >= self._batching.max_bytes

    def _latest(self, opened_at: float, expires: float) -> float:
        """When a batch must go whose first job came, and whose first deadline is, then (monotonic seconds)."""
        return min(opened_at + self._batching.linger_ms / 1000, expires - self._service_seconds - self._slack_margin_seconds)

    def retain(self, partitions: Collection[tuple[str, int]]) -> None:
        """Forget the jobs of all other partitions than these (topic, number): they are another lane's now."""
        for kind, batch in list(self._open.items()):
            kept = [job for job in batch.jobs if (job.topic, job.partition) in partitions]
            if not kept:
                del self._open[kind]
            elif len(kept) < len(batch.jobs):
                batch.jobs = kept
                batch.size_bytes = sum(len(job.payload) for job in kept)
