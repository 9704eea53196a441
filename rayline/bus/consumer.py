"""A member of a consumer group that hands out no record before its owner has taken the partition over.

aiokafka reads the committed position of a new partition by itself, before its listener runs, and only logs what the
listener raises. Here a new partition starts paused and without a position: the owner fences, reads the stable offsets,
seeks, claims, and then resumes. What goes wrong in a callback comes out of the next `getmany`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, Protocol

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.structs import TopicPartition

from rayline.bus.connection import close_whole, start_when_reachable
from rayline.bus.identity import topic_ids
from rayline.bus.offsets import StableCoordinator, wait_for_committed
from rayline.bus.protocol import GroupMember, check_client
from rayline.bus.settings import KafkaSettings
from rayline.bus.tolerant_records import Allowance
from rayline.errors import BusError, MemberFenced, OffsetLost
from rayline.jobs import Header

_log = logging.getLogger(__name__)

_UNTAKEN: Final = 0
BUSY_FETCH_BYTES: Final = 256 * 1024
BUSY_FETCH_WAIT_MS: Final = 15
# A poll hands out one batch more at most.
MAX_POLL_INFLATED_BYTES: Final = 64 * 1024 * 1024
_IDENTITY_SECONDS: Final = 5.0


class Record(Protocol):
    """A record as the batch holds it. `timestamp` is epoch ms, `timestamp_type` 1 where the broker gave it; a header's name has
    surrogates where it was not UTF-8. One that could not be taken into memory is a `CutRecord`."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class RebalanceListener(Protocol):
    """What the owner of a `GroupConsumer` does when partitions go and come; both are awaited by the group's protocol."""

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """These partitions go; until this returns the old generation can still commit."""

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """These partitions came (all of the new assignment); each is paused: seek, then resume."""


class GroupConsumer:
    """One member of a consumer group, reading committed records of the partitions that its owner has taken over.

    Owns the membership (heartbeats, rebalances) and the fetching. Does not own committed offsets (they are part of the
    producer's transaction), nor where to start: each assigned partition is paused until `seek` and `resume`.
    `client_id` is what `live_members` shows to others; a lane gives its transactional id.

    Life: `start` (joins in the background) -> `on_assigned` of the listener -> `seek`, `resume`, `getmany` -> `stop`.
    An exception of the listener, and whatever ended the membership, is raised by the next `getmany`.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        topics: Sequence[str],
        group_id: str,
        listener: RebalanceListener,
        client_id: str,
        group_instance_id: str | None = None,
        session_timeout_ms: int = 6_000,
        heartbeat_interval_ms: int = 1_000,
        rebalance_timeout_ms: int = 6_000,
        max_poll_interval_ms: int = 300_000,
        metadata_max_age_ms: int = 30_000,
        request_timeout_ms: int = 10_000,
        fetch_max_wait_ms: int = 500,
        fetch_max_bytes: int = 32 * 1024 * 1024,
        max_partition_fetch_bytes: int = 2 * 1024 * 1024,
        start_timeout_seconds: float = 30.0,
    ) -> None:
        check_client()
        self._settings = settings
        self._topics = tuple(topics)
        self._group_id = group_id
        self._instance_id = group_instance_id
        self._listener = listener
        self._start_timeout_seconds = start_timeout_seconds
        self._idle_wait_ms = fetch_max_wait_ms
        # aiokafka keeps a member's previous assignment on the assignor's class: each member needs a class of its own.
        self._assignor: Any = type("StickyAssignor", (StickyPartitionAssignor,), {})
        self._consumer = AIOKafkaConsumer(
            **settings.client_kwargs(),
            client_id=client_id,
            group_id=group_id,
            group_instance_id=group_instance_id,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=heartbeat_interval_ms,
            rebalance_timeout_ms=rebalance_timeout_ms,
            max_poll_interval_ms=max_poll_interval_ms,
            metadata_max_age_ms=metadata_max_age_ms,
            request_timeout_ms=request_timeout_ms,
            fetch_max_wait_ms=fetch_max_wait_ms,
            fetch_max_bytes=fetch_max_bytes,
            max_partition_fetch_bytes=max_partition_fetch_bytes,
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            check_crcs=True,
            retry_backoff_ms=50,
            partition_assignment_strategy=(self._assignor,),
        )
        close_whole(self._consumer._client)
        self._consumer._subscription = _PausedOnArrival()
        self._member: GroupMember | None = None
        self._positioned: set[TopicPartition] = set()
        self._left_at: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, uuid.UUID | None] = {}
        self._identity_check: asyncio.Task[None] | None = None
        self._next_identity_check = 0.0
        self._failure: Exception | None = None

    async def start(self) -> None:
        """Connect, see that the topics exist, and begin to join the group.

        Raises:
            BrokerUnavailable: no broker answers.
            BusError: a topic does not exist.
        """
        consumer = self._consumer
        try:
            await start_when_reachable(consumer.start, self._settings, self._start_timeout_seconds)
            for topic in self._topics:
                await self._see_topic(topic)
            await self._check_identity()
        except BaseException:
            await consumer.stop()
            raise
        # Nothing is subscribed yet, so aiokafka's coordinator has done nothing yet either.
        consumer._coordinator.__class__ = StableCoordinator
        consumer.subscribe(topics=self._topics, listener=_ListenerAdapter(self))

    async def stop(self, *, leave: bool = False, timeout_seconds: float = 5.0) -> None:
        """Close. `leave`: give the partitions up at once; a static member otherwise keeps them for its session."""
        coordinator = self._consumer._coordinator
        if leave and coordinator is not None:
            # aiokafka sends LeaveGroup only for members that it believes to be dynamic.
            coordinator._group_instance_id = None
        self._member = None
        if self._identity_check is not None:
            self._identity_check.cancel()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._consumer.stop()
        except TimeoutError:
            _log.warning("the member of %s did not close within %g s; its tasks are cancelled", self._group_id, timeout_seconds)
            if coordinator is not None:
                coordinator._coordination_task.cancel()
            await self._consumer._fetcher.close()
            await self._consumer._client.close()

    async def getmany(self, *, timeout_ms: int, max_records: int | None = None) -> dict[TopicPartition, list[Record]]:
        """Records of the resumed partitions, at most `max_records` in all; empty after `timeout_ms` without any.

        Raises:
            OffsetLost: a position is outside of what the broker holds, or the topic was deleted (and perhaps made
                again); that partition is paused.
            BusError: the broker refuses us, or this member cannot go on.
            Exception: what a callback of the listener raised.
        """
        fetcher = self._consumer._fetcher
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_ms / 1000
        while True:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            try:
                self._check_identity_when_due()
                records = await self._poll(max_records)
                remaining = deadline - clock()
                if records or remaining <= 0:
                    self._pace(busy=bool(records))
                    return records
                waiter = fetcher._create_fetch_waiter()
                await asyncio.wait({waiter}, timeout=remaining)
                if waiter.done():
                    waiter.result()
                else:
                    waiter.cancel()
            except kafka_errors.OffsetOutOfRangeError as error:
                raise await self._lost(error) from error
            except kafka_errors.KafkaError as error:
                raise BusError(f"the member of {self._group_id} cannot read: {error!r}") from error

    def _pace(self, *, busy: bool) -> None:
        """While records keep coming, let the broker gather them for a moment: each answer to a fetch costs both sides dearly.

        The first record after a rest is handed out at once.
        """
        fetcher = self._consumer._fetcher
        fetcher._fetch_min_bytes = BUSY_FETCH_BYTES if busy else 1
        fetcher._fetch_max_wait_ms = BUSY_FETCH_WAIT_MS if busy else self._idle_wait_ms

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions assigned at present, paused ones included."""
        return frozenset(self._consumer.assignment())

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Hand out no records of these until `resume`; unknown ones are left alone (a rebalance may have come first)."""
        self._consumer.pause(*self._mine(partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Hand out records of these.

        Raises:
            BusError: one of them was never given a position since it was assigned.
        """
        mine = self._mine(partitions)
        if missing := [tp for tp in mine if tp not in self._positioned]:
            raise BusError(f"{missing} have no position yet: seek before resume")
        self._consumer.resume(*mine)
        self._wake()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Make `offset` the next one to read of an assigned partition."""
        self._consumer.seek(partition, offset)
        self._positioned.add(partition)

    def position(self, partition: TopicPartition) -> int | None:
        """Offset of the next record to be handed out; None before the first `seek`."""
        if partition not in self._positioned:
            return None
        position: int = self._consumer._subscription.subscription.assignment.state_value(partition).position
        return position

    def highwater(self, partition: TopicPartition) -> int | None:
        """Offset after the last record on the broker, as of the last fetch; None before the first."""
        return self._known(self._consumer.highwater, partition)

    def stable(self, partition: TopicPartition) -> int | None:
        """Offset at which the first open transaction begins (or `highwater`), as of the last fetch; None before the first."""
        return self._known(self._consumer.last_stable_offset, partition)

    def answered_ms(self, partition: TopicPartition) -> int | None:
        """When the broker last answered a fetch (epoch ms of this machine); None before the first."""
        return self._known(self._consumer.last_poll_timestamp, partition)

    def member(self) -> GroupMember:
        """The membership under which the present partitions were assigned.

        Raises:
            MemberFenced: not a member now (not joined yet, or a rebalance has begun and `on_revoked` has returned).
        """
        if self._member is None:
            raise MemberFenced(f"not a member of {self._group_id} at the moment: wait for on_assigned")
        return self._member

    async def committed_stable(
        self, partitions: Collection[TopicPartition], *, timeout_seconds: float = 20.0
    ) -> dict[TopicPartition, tuple[int, str]]:
        """(committed offset or -1, metadata) of each partition, once no open transaction can change it any more.

        Raises:
            BusError: a transaction stayed open for `timeout_seconds` (fence its owner first).
        """
        return await wait_for_committed(
            self._consumer._coordinator,
            self._group_id,
            partitions,
            require_stable=True,
            timeout_seconds=timeout_seconds,
        )

    async def committed_so_far(
        self, partitions: Collection[TopicPartition], *, timeout_seconds: float = 20.0
    ) -> dict[TopicPartition, tuple[int, str]]:
        """(committed offset or -1, metadata) of each partition, whatever transaction is open: whom to fence, no more.

        Raises:
            BusError: the group's coordinator does not answer in time.
        """
        return await wait_for_committed(
            self._consumer._coordinator,
            self._group_id,
            partitions,
            require_stable=False,
            timeout_seconds=timeout_seconds,
        )

    async def live_members(self) -> frozenset[str]:
        """Client ids of the group's members, as its coordinator sees them (a silent one stays for its session)."""
        coordinator = self._consumer._coordinator
        try:
            await coordinator.ensure_coordinator_known()
            response = await coordinator._send_req(DescribeGroupsRequest([self._group_id]))
        except kafka_errors.KafkaError as error:
            raise BusError(f"the broker does not describe group {self._group_id}: {error!r}") from error
        ((code, _, _, _, _, members, *_),) = response.groups
        if code:
            raise BusError(f"the broker does not describe group {self._group_id}: {kafka_errors.for_code(code)()!r}")
        return frozenset(client_id for _, client_id, _, _, _ in members)

    async def earliest(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """First offset that the broker still holds, for each partition."""
        return await self._bounds(self._consumer.beginning_offsets, partitions)

    async def latest(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset after the last one that a committed read can reach, for each partition."""
        return await self._bounds(self._consumer.end_offsets, partitions)

    async def _bounds(self, ask: Any, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        try:
            bounds: dict[TopicPartition, int] = await ask(list(partitions))
        except kafka_errors.KafkaError as error:
            raise BusError(f"the broker does not give the bounds of {sorted(partitions)}: {error!r}") from error
        return bounds

    async def _see_topic(self, topic: str) -> None:
        try:
            await self._consumer._client._wait_on_metadata(topic)
        except kafka_errors.UnknownTopicOrPartitionError as error:
            raise BusError(f"the topic {topic} does not exist: deploy the app that it belongs to first") from error

    async def _poll(self, max_records: int | None) -> dict[TopicPartition, list[Record]]:
        subscription = self._consumer._subscription
        self._consumer._coordinator.check_errors()
        # Whoever asks is alive, also while nothing may be handed out: aiokafka gives up a member that has read nothing for
        # `max_poll_interval_ms`, and never joins again.
        with subscription.fetch_context():
            pass
        if subscription.reassignment_in_progress:
            return {}
        ready = self._consumer.assignment() - subscription.paused_partitions()
        if not ready:
            return {}
        allowance = Allowance(MAX_POLL_INFLATED_BYTES)
        for result in self._consumer._fetcher._records.values():
            if isinstance(result, FetchResult) and result.has_more():
                part = result._partition_records
                part._consumer_record = _as_it_is
                part._records.allow(allowance, part.next_fetch_offset)
        records: dict[TopicPartition, list[Record]] = await self._consumer.getmany(*ready, timeout_ms=0, max_records=max_records)
        return records

    async def _lost(self, error: kafka_errors.OffsetOutOfRangeError) -> Exception:
        ((partition, position),) = error.args[0].items()
        self.pause([partition])
        earliest = (await self.earliest([partition]))[partition]
        return OffsetLost(partition, position, earliest)

    def _check_identity_when_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_identity_check and (self._identity_check is None or self._identity_check.done()):
            self._next_identity_check = now + _IDENTITY_SECONDS
            self._identity_check = asyncio.create_task(self._check_identity())

    async def _check_identity(self) -> None:
        """See that the topics are still the ones that this member began to read; what is lost goes to `getmany`."""
        try:
            found = await topic_ids(self._consumer._client, self._topics)
            for topic, topic_id in found.items():
                known = self._topic_ids.setdefault(topic, topic_id)
                mine = {tp: self.position(tp) for tp in self._positioned if tp.topic == topic}
                read = sorted((tp, at) for tp, at in {**self._left_at, **mine}.items() if tp.topic == topic)
                if topic_id == known or not read:
                    continue
                self.pause(mine)
                partition, position = read[0]
                earliest = None if topic_id is None else (await self.earliest([partition]))[partition]
                self._failure = OffsetLost(partition, position or 0, earliest)
                self._wake()
        except (kafka_errors.KafkaError, BusError) as error:
            _log.info("whether the topics of %s were made again cannot be told now: %r", self._group_id, error)

    def _known(self, ask: Callable[[TopicPartition], int | None], partition: TopicPartition) -> int | None:
        return ask(partition) if partition in self._consumer.assignment() else None

    def _mine(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        assigned = self._consumer.assignment()
        return [tp for tp in partitions if tp in assigned]

    def _wake(self) -> None:
        """Let a waiting `getmany` look again."""
        fetcher = self._consumer._fetcher
        for waiter in list(fetcher._fetch_waiters):
            fetcher._notify(waiter)

    async def _revoked(self, partitions: frozenset[TopicPartition]) -> None:
        try:
            if partitions:
                await self._listener.on_revoked(partitions)
        except Exception as error:  # noqa: BLE001 - aiokafka would only log it; getmany raises it
            self._failure = error
        finally:
            self._member = None
            self._left_at |= {tp: at for tp in partitions if (at := self.position(tp)) is not None}
            self._positioned.clear()
            self._wake()

    async def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        coordinator = self._consumer._coordinator
        self._assignor.generation = coordinator.generation
        self._member = GroupMember(self._group_id, coordinator.generation, coordinator.member_id, self._instance_id)
        # aiokafka begins to heartbeat only after the callback; a takeover may take longer than the session.
        coordinator._start_heartbeat_task()
        await self._check_identity()
        try:
            await self._listener.on_assigned(partitions)
        except Exception as error:  # noqa: BLE001 - aiokafka would only log it; getmany raises it
            self._failure = error
        finally:
            self._wake()


def _as_it_is(_: TopicPartition, record: Record) -> Record:
    """In place of aiokafka's conversion: half of the cost of reading a record."""
    return record


class _PausedOnArrival(SubscriptionState):
    """Partitions arrive paused and with a position, so that aiokafka neither fetches nor looks a position up."""

    def assign_from_subscribed(self, assignment: set[TopicPartition]) -> None:
        super().assign_from_subscribed(assignment)
        for partition in self.assigned_partitions():
            self.seek(partition, _UNTAKEN)
            self.pause(partition)


class _ListenerAdapter(ConsumerRebalanceListener):
    """Carries aiokafka's callbacks to the consumer."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._consumer._revoked(frozenset(revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._consumer._assigned(frozenset(assigned))
