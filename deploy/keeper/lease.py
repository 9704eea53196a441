"""The keepers' lease: at most one of them writes orders, and the broker itself refuses everybody else.

Who may lead is decided by a consumer group: the one partition of `rayline.clusters` belongs to one live member. That alone would
not do, as a member that was frozen does not know that its time is over. So all keepers share one `transactional.id`, which a new
leader takes (the broker then refuses whatever its predecessor still sends, and settles what it left open), and every transaction
also names the member's generation in the group, which the broker checks again. Only then does the leader read the topic to its
end and claim the next epoch. Orders of two keepers can therefore never stand in the log side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from rayline.bus import GroupConsumer, KafkaSettings, Phase, RecordBatchWriter, TopicPartition, TransactionalProducer
from rayline.clusters import Entry, encode_entry
from rayline.events import Event, encode_event
from rayline.topics import CLUSTERS, EVENTS

GROUP: Final = "rayline.keeper"
TRANSACTIONAL_ID: Final = "rayline.keeper"
SESSION_TIMEOUT_MS: Final = 6_000
_HEARTBEAT_MS: Final = 300
_TRANSACTION_TIMEOUT_MS: Final = 10_000
_POLL_MS: Final = 1_000
_PARTITION: Final = TopicPartition(CLUSTERS, 0)


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """`group` and `transactional_id` are shared by all keepers of a platform. `on_phase` is told how far each transaction is."""

    group: str = GROUP
    transactional_id: str = TRANSACTIONAL_ID
    session_timeout_ms: int = SESSION_TIMEOUT_MS
    on_phase: Callable[[Phase], None] | None = None


class Lease:
    """Membership in the group of keepers.

    Owns the membership and its heartbeats; `run` must be running for it to hold. Does not own orders. A keeper that was restarted
    under its name is the member that it was, without waiting for its session to end.
    Life: `async with` -> `run` as a task -> `wait_assigned` -> `term`, any number of times; the end leaves the group at once.
    """

    def __init__(self, settings: KafkaSettings, *, name: str, options: LeaseOptions) -> None:
        self._settings = settings
        self._options = options
        self._held = asyncio.Condition()
        self._holding = False
        self._assignments = 0
        self._consumer = GroupConsumer(
            settings=settings,
            topics=[CLUSTERS],
            group_id=options.group,
            listener=self,
            client_id=name,
            group_instance_id=name,
            session_timeout_ms=options.session_timeout_ms,
            heartbeat_interval_ms=_HEARTBEAT_MS,
        )

    async def __aenter__(self) -> Lease:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop(leave=True)

    async def run(self) -> None:
        """Keep the membership alive until cancelled; raises BusError when it cannot go on."""
        while True:
            await self._consumer.getmany(timeout_ms=_POLL_MS)

    async def wait_assigned(self, *, after: int = 0) -> int:
        """Until this member may lead by an assignment later than number `after`; its number."""
        async with self._held:
            await self._held.wait_for(lambda: self._holding and self._assignments > after)
        return self._assignments

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        async with self._held:
            self._holding = self._holding and _PARTITION not in partitions

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        async with self._held:
            self._holding = _PARTITION in partitions
            self._assignments += self._holding
            self._held.notify_all()

    def term(self) -> Term:
        """Begin to lead: `async with lease.term() as term`."""
        return Term(self._settings, self._consumer, self._options)


class Term:
    """One keeper's time as leader.

    Owns the transactional producer. Whatever fails ends the term: nothing it sent afterwards could count.
    Life: `async with` (fences the predecessor) -> `commit` any number of times.
    """

    def __init__(self, settings: KafkaSettings, consumer: GroupConsumer, options: LeaseOptions) -> None:
        self._consumer = consumer
        self._on_phase = options.on_phase
        self._producer = TransactionalProducer(
            settings=settings,
            transactional_id=options.transactional_id,
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
        )

    async def __aenter__(self) -> Term:
        await self._producer.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._producer.close()

    async def commit(self, entries: Sequence[Entry], events: Sequence[Event]) -> None:
        """Write entries and the events that tell of them, all or nothing.

        Raises:
            ProducerFenced, MemberFenced: another keeper leads; nothing was written.
            BusError: it is not known whether it was written.
        """
        orders = _batches(CLUSTERS, [encode_entry(entry) for entry in entries])
        told = _batches(EVENTS, [(event.key, encode_event(event)) for event in events])
        # The offset itself means nothing: with it the broker checks that this member may lead at this moment.
        offsets = {_PARTITION: (0, "")}
        await self._producer.commit(
            batches=[*orders, *told], offsets=offsets, group=self._consumer.member(), on_phase=self._on_phase
        )


def _batches(topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, int, RecordBatchWriter]]:
    """Records for the one partition of a platform topic, in as few batches as they need."""
    batches: list[tuple[str, int, RecordBatchWriter]] = []
    for key, value in records:
        if not batches or not batches[-1][2].append(key=key, value=value):
            writer = RecordBatchWriter()
            writer.append(key=key, value=value)
            batches.append((topic, 0, writer))
    return batches
