"""Batches that wait for an actor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator

from rayline.jobs import Job
from scheduler.batch import Batch


class Waiting:
    """Owns what is not in flight: `again`, which goes first (it is older), `fresh`, and `held`, which is not to be dispatched
    until more is known of what killed its workers. Does not own when and where to.

    Life: batches come by `submit`, `put_back` and `hold`; the dispatcher takes them from the queues themselves.
    """

    def __init__(self) -> None:
        self.fresh: deque[Batch] = deque()
        self.again: deque[Batch] = deque()
        self.held: list[Batch] = []

    def __len__(self) -> int:
        return len(self.fresh) + len(self.again) + len(self.held)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.again
        yield from self.fresh
        yield from self.held

    @property
    def nothing_ready(self) -> bool:
        """Nothing waits for a free actor."""
        return not self.fresh and not self.again

    def submit(self, batches: Iterable[Batch]) -> None:
        """Batches from outside; what is under suspicion waits for news of it first."""
        for batch in batches:
            if batch.suspect:
                self.held.append(batch)
            else:
                self.fresh.append(batch)

    def put_back(self, batches: Iterable[Batch]) -> None:
        """In this order, before all others."""
        self.again.extendleft(reversed(list(batches)))

    def hold(self, batch: Batch) -> None:
        self.held.append(batch)

    def take_held(self) -> list[Batch]:
        """All that is held: whatever still must wait is held again."""
        held, self.held = self.held, []
        return held

    def take_expired(self, now: float) -> list[tuple[Batch, list[Job]]]:
        """Jobs that expired by `now` (monotonic seconds), with the batches they were in; batches keep their places."""
        late = [batch for batch in self if batch.first_expiry <= now]
        expired = [(batch, [job for job in batch.jobs if job.expires <= now]) for batch in late]
        if expired:
            self._keep(lambda job: job.expires > now)
        return expired

    def retain(self, partitions: Collection[tuple[str, int]]) -> None:
        """Forget the jobs of all other partitions than these (topic, number)."""
        self._keep(lambda job: (job.topic, job.partition) in partitions)

    def _keep(self, wanted: Callable[[Job], bool]) -> None:
        self.fresh = deque(_kept(self.fresh, wanted))
        self.again = deque(_kept(self.again, wanted))
        self.held = list(_kept(self.held, wanted))


def _kept(batches: Iterable[Batch], wanted: Callable[[Job], bool]) -> Iterator[Batch]:
    for batch in batches:
        jobs = [job for job in batch.jobs if wanted(job)]
        if jobs:
            yield batch if len(jobs) == len(batch.jobs) else batch.part(jobs)
