"""What of a lane makes no progress: partitions that stand still, a broker that does not answer, open transactions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rayline.stalls import Stall, StallKind

# Transactions of producers last fractions of a second; one that stays open delays every job behind it.
OPEN_TRANSACTION_SECONDS: Final = 5.0
# An empty fetch is answered within half a second.
BROKER_SILENT_SECONDS: Final = 10.0
# Deadlines end jobs, and so move the frontier: what stands longer than the SLA and this is stuck.
STUCK_MARGIN_SECONDS: Final = 5.0
MAX_UNREAD_SECONDS: Final = 15.0
# Resources that are started anew leave gaps of a few seconds.
UNHEARD_SECONDS: Final = 5.0

PartitionKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """One partition as the lane sees it now; offsets. `stable` is where the first open transaction begins, `end` the end of the
    partition (None: not known yet), `answer` changes with each answer of the broker, `halted` says why it is read no more."""

    key: PartitionKey
    owned: bool
    paused: bool
    position: int
    frontier: int
    outstanding: int
    waiting: int
    end: int | None = None
    stable: int | None = None
    answer: int | None = None
    halted: str | None = None

    @property
    def lag(self) -> int:
        return max(0, (self.position if self.end is None else self.end) - self.frontier)

    @property
    def name(self) -> str:
        return f"{self.key[0]}/{self.key[1]}"


@dataclass(frozen=True, slots=True)
class BlockedPartition:
    """A transaction that began at `stable` keeps what lies behind it from being read, since `since` (monotonic seconds)."""

    key: PartitionKey
    stable: int
    since: float


@dataclass(slots=True)
class _Seen:
    facts: PartitionFacts
    moved_at: float
    stable_since: float
    answered_at: float
    halted_at: float


class StallWatch:
    """Owns since when each partition has stood still. Does not own partitions, nor a clock.

    Life: `observe` each second or so → `stalls`, `ages`, `blocked`. `name_producer` adds who holds a transaction open.
    """

    def __init__(self) -> None:
        self._seen: dict[PartitionKey, _Seen] = {}
        self._producers: dict[tuple[PartitionKey, int], str] = {}
        self._at = 0.0
        self._sla_seconds = 0.0

    def observe(self, facts: Iterable[PartitionFacts], *, now: float, sla_seconds: float) -> None:
        """All partitions of the lane; what is not among them is forgotten."""
        found: dict[PartitionKey, _Seen] = {}
        for fact in facts:
            seen = self._seen.get(fact.key)
            found[fact.key] = _Seen(fact, now, now, now, now) if seen is None else _follow(seen, fact, now)
        # The loop itself was held up: nothing of what it did not look at stood still for that.
        gap = now - self._at - BROKER_SILENT_SECONDS if self._at else 0.0
        if gap > 0:
            for seen in found.values():
                seen.moved_at, seen.answered_at, seen.stable_since = seen.moved_at + gap, now, now
        self._seen, self._at, self._sla_seconds = found, now, sla_seconds
        held = {(seen.facts.key, seen.facts.stable) for seen in found.values()}
        self._producers = {key: text for key, text in self._producers.items() if key in held}

    def ages(self) -> Mapping[PartitionKey, float]:
        """Seconds since anything of a partition moved; 0 where nothing is to be done."""
        return {key: self._at - seen.moved_at for key, seen in self._seen.items()}

    def blocked(self) -> list[BlockedPartition]:
        """Partitions behind an open transaction for too long."""
        return [
            BlockedPartition(key, seen.facts.stable, seen.stable_since)
            for key, seen in self._seen.items()
            if seen.facts.stable is not None
            and _behind_transaction(seen.facts)
            and self._open_for(seen) > OPEN_TRANSACTION_SECONDS
        ]

    def open_seconds(self, blocked: BlockedPartition) -> float:
        return self._at - blocked.since

    def name_producer(self, blocked: BlockedPartition, producer: str) -> None:
        """Who holds that transaction open."""
        self._producers[blocked.key, blocked.stable] = producer

    def producer(self, blocked: BlockedPartition) -> str | None:
        return self._producers.get((blocked.key, blocked.stable))

    def stalls(self) -> list[Stall]:
        """Everything that makes no progress, worst first: the broker, what is halted, what waits for others, what is stuck."""
        found = [*self._broker(), *self._halted()]
        behind = self.blocked()
        for blocked in behind:
            name = self._seen[blocked.key].facts.name
            who = self.producer(blocked) or "a producer that is not known yet"
            why = (
                f"an open transaction of {who} keeps what lies behind offset {blocked.stable} from being read: "
                f"end that producer, or `kafka-transactions.sh abort --topic {blocked.key[0]} --partition {blocked.key[1]} "
                f"--start-offset {blocked.stable}`"
            )
            found.append(Stall(StallKind.OPEN_TRANSACTION, name, self._at - blocked.since, why))
        told = {stall.subject for stall in found}
        if not any(stall.kind is StallKind.BROKER for stall in found):
            found += [stall for stall in self._stuck() if stall.subject not in told]
        return found

    def _open_for(self, seen: _Seen) -> float:
        return self._at - seen.stable_since

    def _broker(self) -> Iterable[Stall]:
        asked = [seen for seen in self._seen.values() if seen.facts.owned and not (seen.facts.paused or seen.facts.halted)]
        if asked:
            seconds = self._at - max(seen.answered_at for seen in asked)
            if seconds > BROKER_SILENT_SECONDS:
                why = "it does not answer fetches: see whether the brokers run and can be reached from here"
                yield Stall(StallKind.BROKER, "Kafka", seconds, why)

    def _halted(self) -> Iterable[Stall]:
        for seen in self._seen.values():
            if seen.facts.halted is not None:
                yield Stall(StallKind.HALTED, seen.facts.name, self._at - seen.halted_at, seen.facts.halted)

    def _stuck(self) -> Iterable[Stall]:
        for seen in self._seen.values():
            fact, seconds = seen.facts, self._at - seen.moved_at
            limit = self._sla_seconds + STUCK_MARGIN_SECONDS
            if not fact.owned:
                why = "it waits for a takeover that does not end: see what its lane logs"
            elif fact.outstanding:
                why = f"{fact.outstanding} jobs were read and none of them ends: see `rayline nodes`, and what the lane logs"
            else:
                limit, why = (
                    min(limit, MAX_UNREAD_SECONDS),
                    f"{fact.lag} records lie there and none is read: see what the lane logs",
                )
            if seconds > limit:
                yield Stall(StallKind.PARTITION, fact.name, seconds, why)


def unheard(ears: float, now: float) -> list[Stall]:
    """Nodes of which nobody tells since `ears` (monotonic seconds); who never heard anybody has only begun."""
    if ears == float("-inf") or now - ears <= UNHEARD_SECONDS:
        return []
    why = "no node and no resource is heard, the last view stays in force: see whether agents and resources run and reach Kafka"
    return [Stall(StallKind.NODES, "nodes", now - ears, why)]


def closed(app: str, since: float | None, now: float) -> list[Stall]:
    """Jobs of the app wait, and since then weights of 0 and cordons keep new batches from every node (None: they do not)."""
    if since is None:
        return []
    why = (
        "every node that could take a job of it is cordoned or has a weight of 0, so its jobs wait for their deadlines: "
        f"`rayline config diff` shows app/{app}/traffic.version_weights, traffic.weight and cordon: raise or unset one"
    )
    return [Stall(StallKind.TRAFFIC, app, now - since, why)]


def _follow(seen: _Seen, fact: PartitionFacts, now: float) -> _Seen:
    old = seen.facts
    idle = not fact.outstanding and not fact.waiting and (fact.end is None or fact.position >= _readable(fact, fact.end))
    moved = (fact.position, fact.frontier, fact.outstanding, fact.waiting) != (
        old.position,
        old.frontier,
        old.outstanding,
        old.waiting,
    )
    return _Seen(
        fact,
        now if idle or moved or (fact.owned and not old.owned) else seen.moved_at,
        seen.stable_since if fact.stable == old.stable and _behind_transaction(fact) else now,
        now if fact.answer != old.answer or fact.paused != old.paused or fact.owned != old.owned else seen.answered_at,
        seen.halted_at if old.halted is not None else now,
    )


def _readable(fact: PartitionFacts, end: int) -> int:
    return end if fact.stable is None else min(end, fact.stable)


def _behind_transaction(fact: PartitionFacts) -> bool:
    return fact.stable is not None and fact.end is not None and fact.stable < fact.end
