"""One partition in a lane's hands: its ledger, the jobs that are under way, and those that ended. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ingest.ledger import Ledger, Plan
from ingest.records import Ended, job_bytes
from rayline.jobs import Job
from rayline.results import Outcome

# A bitmap of Kafka's commit metadata holds 24,000 offsets: reading further ahead of the frontier gains nothing.
MAX_OUTSTANDING: Final = 16_000


@dataclass(frozen=True, slots=True)
class Share:
    """What one transaction publishes of a partition. `leading`: they are the first of those that wait, in their order."""

    plan: Plan
    ended: tuple[Ended, ...]
    leading: bool = False


class PartitionState:
    """Owns one partition from its takeover to its loss. Does not own Kafka, batches, or other partitions.

    `owned` is False from the revocation until the next takeover: nothing is published then, while what is in flight goes on.
    `halted` says that Kafka lost what was to be read next: what was read before is still published.
    Invariant: each job that was read is either under way or in `ended`, until its result is published.
    """

    def __init__(self, *, ledger: Ledger) -> None:
        self.ledger = ledger
        self.owned = True
        self.paused = False
        self.halted = False
        self.held_bytes = 0
        self._under_way: dict[int, Job] = {}
        self._ended: list[Ended] = []

    @property
    def full(self) -> bool:
        """Too far ahead of the frontier to read on."""
        return self.ledger.outstanding >= MAX_OUTSTANDING

    @property
    def waiting(self) -> int:
        """Ended jobs that wait to be published."""
        return len(self._ended)

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def take(self, job: Job) -> None:
        """A job was read and admitted or rejected; it is under way until `end`."""
        self._under_way[job.offset] = job
        job.held_bytes = job_bytes(job)
        self.held_bytes += job.held_bytes

    def end(self, ended: Iterable[Ended]) -> None:
        """Jobs ended. One that had ended before, or belongs to a takeover that is over, is passed over."""
        under_way, held_bytes = self._under_way, self.held_bytes
        for one in ended:
            job = one.job
            if under_way.get(job.offset) is not job:
                continue
            del under_way[job.offset]
            if one.value is not None:
                held_bytes += len(one.value)
            self._ended.append(one)
        self.held_bytes = held_bytes

    def share(self, most: int, most_bytes: int) -> Share | None:
        """What can be published now, at most so many jobs, and bytes unless it is one; None when nothing can.

        A share without jobs moves the committed offset over records that do not exist: retention may then delete them.
        """
        candidates = self._ended[:most]
        if not candidates and self.ledger.trails:
            return Share(self.ledger.plan(()), ())
        if self.held_bytes > most_bytes:
            candidates = _within(candidates, most_bytes)
        if not candidates:
            return None
        plan = self.ledger.plan([ended.job.offset for ended in candidates])
        leading = True
        if len(plan.accepted) < len(candidates) < len(self._ended):
            leading = False
            # The ledger is full: only the lowest offsets move the frontier, whenever their jobs ended.
            candidates = heapq.nsmallest(len(candidates), self._ended, key=lambda ended: ended.job.offset)
            plan = self.ledger.plan([ended.job.offset for ended in candidates])
        if not plan.accepted:
            return None
        if len(plan.accepted) == len(candidates):
            return Share(plan, tuple(candidates), leading)
        return Share(plan, tuple(ended for ended in candidates if ended.job.offset in plan.accepted))

    def more(self, share: Share, taken: int, most: int) -> list[Ended]:
        """What a transaction that has this share may publish besides, after the `taken` jobs that it has by now."""
        return self._ended[taken : taken + most] if share.leading and self.ledger.roomy else []

    def close_share(self, share: Share, taken: int) -> Share:
        """The share with all that was taken since."""
        if taken == len(share.ended):
            return share
        ended = tuple(self._ended[:taken])
        plan = self.ledger.plan([one.job.offset for one in ended])
        assert len(plan.accepted) == taken, "a ledger said that it was roomy, and was not"
        return Share(plan, ended, leading=True)

    def published(self, share: Share) -> None:
        """The transaction with this share was committed."""
        self.ledger.confirm(share.plan)
        if share.leading:
            self.held_bytes -= sum(ended.held_bytes for ended in share.ended)
            del self._ended[: len(share.ended)]
        else:
            self._drop_published(share.plan.accepted)

    def reconcile(self, committed: int, metadata: str) -> None:
        """Take over what Kafka says is committed after a transaction of unknown outcome.

        Raises FormatError when the metadata is not a ledger.
        """
        self.ledger.reconcile(committed, metadata)
        self._drop_published(frozenset(e.job.offset for e in self._ended if self.ledger.is_published(e.job.offset)))

    def replace_value(self, ended: Ended, *, error_type: str, error_message: str) -> None:
        """The feature of an ended job cannot be published: the job ends with this error instead."""
        self.held_bytes -= len(ended.value or b"")
        ended.outcome, ended.value = Outcome.ERROR, None
        ended.error_type, ended.error_message = error_type, error_message

    def _drop_published(self, offsets: frozenset[int]) -> None:
        kept: list[Ended] = []
        for ended in self._ended:
            if ended.job.offset in offsets:
                self.held_bytes -= ended.held_bytes
            else:
                kept.append(ended)
        self._ended = kept


def _within(candidates: list[Ended], most_bytes: int) -> list[Ended]:
    size = 0
    for count, ended in enumerate(candidates):
        size += ended.held_bytes
        if size > most_bytes and count:
            return candidates[:count]
    return candidates
