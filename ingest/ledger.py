"""The ledger of one partition: which records are published, so that each is published exactly once. Pure.

Kafka keeps one committed offset; jobs end out of order. What is published beyond that offset travels in the commit's metadata.
The rule that makes it exact: a result is published only in a transaction whose ledger represents it. What does not fit waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingest import ledger_codec


@dataclass(frozen=True, slots=True)
class Plan:
    """One transaction's share of a partition: `accepted` offsets may be published with this commit."""

    frontier: int
    metadata: str
    accepted: frozenset[int]


class Ledger:
    """Owns what is read and what is published of one partition.

    Does not own results, nor the transaction: `plan` says what may go into it, `confirm` that it was committed. After a
    transaction of unknown outcome the committed state is read back with `reconcile`.

    Offsets have gaps (transaction markers, compaction): the frontier advances by records read, never by arithmetic.
    """

    def __init__(self, *, owner: str, committed: int, metadata: str = "", max_chars: int = ledger_codec.MAX_CHARS) -> None:
        """Raises FormatError when the metadata is not a ledger."""
        self._owner = owner
        self._max_chars = max_chars
        self._outstanding: deque[int] = deque()
        self._frontier = committed
        self._published: set[int] = set()
        self._load(committed, metadata)
        self._position = committed

    @property
    def frontier(self) -> int:
        """The committed offset: all records before it are published."""
        return self._frontier

    @property
    def position(self) -> int:
        """The next offset to be read."""
        return self._position

    @property
    def outstanding(self) -> int:
        """Records read and not known to be below the frontier."""
        return len(self._outstanding)

    def read(self, offset: int) -> bool:
        """A record was read; False when it must not be worked on: published already, or read before."""
        if offset < self._position:
            return False
        self._position = offset + 1
        if offset in self._published:
            return False
        self._outstanding.append(offset)
        return True

    def skip_to(self, position: int) -> None:
        """The reader stands at `position`: what lies before it and was not read does not exist (markers, compaction, aborted)."""
        self._position = max(self._position, position)

    @property
    def trails(self) -> bool:
        """Everything read is published, yet the committed offset stands before records that do not exist."""
        return not self._outstanding and self._position > self._frontier

    @property
    def roomy(self) -> bool:
        """A plan takes whatever ends of the records that are read so far."""
        return self._max_chars >= ledger_codec.MAX_CHARS and self._position - self._frontier <= ledger_codec.SPAN_THAT_FITS

    def plan(self, offsets: Sequence[int]) -> Plan:
        """What a transaction may publish of these ended offsets (read, not yet published), lowest first."""
        candidates = sorted(set(offsets) - self._published)
        whole = self._plan(candidates)
        if self._fits(whole):
            return whole
        # The map must never be cut: publish as many of the lowest as it can represent.
        fits, too_many = 0, len(candidates)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self._fits(self._plan(candidates[:middle])):
                fits = middle
            else:
                too_many = middle
        return self._plan(candidates[:fits])

    def confirm(self, plan: Plan) -> None:
        """The transaction of this plan was committed."""
        self._published |= plan.accepted
        self._advance(plan.frontier)

    def reconcile(self, committed: int, metadata: str) -> None:
        """Take over what Kafka says is committed, after a transaction of unknown outcome. What was read stays read.

        Raises FormatError when the metadata is not a ledger.
        """
        self._load(committed, metadata)
        self._advance(committed)
        while self._outstanding and self._outstanding[0] in self._published:
            self._outstanding.popleft()

    def is_published(self, offset: int) -> bool:
        return offset < self._frontier or offset in self._published

    def _plan(self, candidates: list[int]) -> Plan:
        accepted = frozenset(candidates)
        frontier = self._position
        for offset in self._outstanding:
            if offset not in accepted and offset not in self._published:
                frontier = offset
                break
        beyond = [offset - frontier for offset in (*self._published, *candidates) if offset >= frontier]
        beyond.sort()
        metadata = ledger_codec.encode(self._owner, np.array(beyond, dtype=np.int64))
        return Plan(frontier, metadata, accepted)

    def _fits(self, plan: Plan) -> bool:
        span = max(plan.accepted, default=plan.frontier) - plan.frontier
        # A successor writes the same map under its own name: room that differed by owner could leave it unable to.
        chars = ledger_codec.chars_under_any_owner(self._owner, plan.metadata)
        return chars <= self._max_chars and span < ledger_codec.MAX_SPAN_BITS

    def _advance(self, frontier: int) -> None:
        self._frontier = frontier
        while self._outstanding and self._outstanding[0] < frontier:
            self._outstanding.popleft()
        self._published = {offset for offset in self._published if offset >= frontier}

    def _load(self, committed: int, metadata: str) -> None:
        text = ledger_codec.decode(metadata)
        self._frontier = committed
        self._published = set((text.published + committed).tolist())
