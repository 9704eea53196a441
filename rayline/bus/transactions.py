"""Results and consumed offsets in one Kafka transaction, by a producer that a successor can fence.

A transaction whose end is uncertain cannot be repaired by the producer that began it: a late EndTxn may end a later
transaction, and aiokafka forgets after an abortable error that anything is left to abort. So a producer is good until
its first failure and never after it: discard it, make a new one (InitProducerId settles what was left open), read the
committed state back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaProducer
from aiokafka.client import CoordinationType
from aiokafka.producer.sender import Sender, TxnOffsetCommitHandler
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from rayline.bus.connection import close_whole, start_when_reachable
from rayline.bus.produce import ProducePipe
from rayline.bus.protocol import GroupMember, TxnOffsetCommit, check_client
from rayline.bus.record_batch import RecordBatchWriter
from rayline.bus.settings import KafkaSettings
from rayline.errors import (
    BrokerUnavailable,
    BusError,
    MemberFenced,
    ProducerFenced,
    RecordTooLarge,
    TransactionIndefinite,
)

_log = logging.getLogger(__name__)

MAX_METADATA_CHARS: Final = 4096
# The broker answers a retriable error while it verifies a new transaction; long pauses would be the latency.
RETRY_MS: Final = 5
_ABORT_SECONDS: Final = 2.0
_CANCEL_SECONDS: Final = 0.2
# Error codes of the broker; aiokafka has no names for some of them.
_MEMBER_GONE_CODES: Final = frozenset({22, 25, 27, 82})
_METADATA_TOO_LARGE: Final = 12
_PRODUCER_FENCED: Final = 90


Batches = Iterable[tuple[str, int, RecordBatchWriter]] | AsyncIterable[tuple[str, int, RecordBatchWriter]]


class Phase(StrEnum):
    """How far a transaction has come."""

    BEGUN = "begun"
    SENT = "sent"
    OFFSETS_SENT = "offsets_sent"
    COMMITTED = "committed"


class _MemberGone(kafka_errors.KafkaError):
    """The broker refused offsets of a group member that is not one any more."""


class _OffsetCommitHandler(TxnOffsetCommitHandler):
    """Sends TxnOffsetCommit v3 for the sender's group member."""

    def create_request(self) -> TxnOffsetCommit:
        sender: _FenceableSender = self._sender
        transaction = sender._txn_manager
        if sender.member is None:
            raise TransactionIndefinite("offsets were added to a transaction without a group member")
        return TxnOffsetCommit(
            transactional_id=transaction.transactional_id,
            producer_id=transaction.producer_id,
            producer_epoch=transaction.producer_epoch,
            member=sender.member,
            offsets={tp: (value.offset, value.metadata) for tp, value in self._offsets.items()},
        )

    def handle_response(self, resp: Any) -> float | None:
        codes = {code for _, partitions, _ in resp.errors for _, code, _ in partitions}
        gone = codes & _MEMBER_GONE_CODES
        if gone:
            self._sender.fail_transaction(_MemberGone(f"the broker answered {sorted(gone)}"))
            return None
        if _METADATA_TOO_LARGE in codes:
            self._sender.fail_transaction(kafka_errors.OffsetMetadataTooLargeError())
            return None
        if _PRODUCER_FENCED in codes:
            raise kafka_errors.ProducerFenced
        backoff: float | None = super().handle_response(_PlainErrors(resp))
        return backoff


class _PlainErrors:
    """The answer of TxnOffsetCommit v3 in the form of v0, which aiokafka's own handler reads."""

    def __init__(self, response: Any) -> None:
        self.errors = [(topic, [(p, code) for p, code, _ in partitions]) for topic, partitions, _ in response.errors]


class _FenceableSender(Sender):
    """aiokafka's sender, with offsets that name the group member and an end that can be called off; no records go through it."""

    on_added: Callable[[], None] | None = None
    member: GroupMember | None = None
    silenced = False
    _ending: asyncio.Task[Any] | None = None

    def fail_transaction(self, error: Exception) -> None:
        """Make the open transaction fail, and keep what must be aborted (aiokafka forgets it, and would send no EndTxn)."""
        transaction = self._txn_manager
        partitions, group = set(transaction._txn_partitions), transaction._txn_consumer_group
        waiter = transaction.wait_for_transaction_end()
        transaction.error_transaction(error)
        _consume(waiter)
        transaction._txn_partitions |= partitions
        transaction._txn_consumer_group = group

    async def _do_add_partitions_to_txn(self, tps: Iterable[TopicPartition]) -> None:
        await super()._do_add_partitions_to_txn(tps)
        if self.on_added is not None:
            self.on_added()

    async def _do_txn_offset_commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str) -> None:
        if not offsets:
            return
        node_id = await self._find_coordinator(CoordinationType.GROUP, group_id)
        await _OffsetCommitHandler(self, offsets, group_id).do(node_id)

    async def _do_txn_commit(self, commit_result: Any) -> None:
        self._ending = asyncio.current_task()
        if not self.silenced:
            await super()._do_txn_commit(commit_result)

    async def silence(self) -> None:
        """Stop at once; no end of a transaction is sent from here on, not even one that waits for its turn."""
        self.silenced = True
        for task in (self._ending, self.sender_task):
            while task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)


class _Producer(AIOKafkaProducer):
    """aiokafka's producer around `_FenceableSender`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        close_whole(self.client)
        self._sender = _FenceableSender(
            self.client,
            acks=-1,
            txn_manager=self._txn_manager,
            retry_backoff_ms=kwargs["retry_backoff_ms"],
            message_accumulator=self._message_accumulator,
            request_timeout_ms=kwargs["request_timeout_ms"],
        )

    @property
    def sender(self) -> _FenceableSender:
        sender: _FenceableSender = self._sender
        return sender

    def sender_error(self) -> BaseException | None:
        """What ended the background task, if anything did."""
        task = self._sender.sender_task
        if task is None or not task.done() or task.cancelled():
            return None
        error: BaseException | None = task.exception()
        return error

    async def drop(self) -> None:
        """Close every connection without flushing or ending anything."""
        self._closed = True
        await self._sender.silence()
        waiter = self._txn_manager.wait_for_transaction_end()
        if waiter is not None:
            _consume(waiter)
        await self.client.close()


class TransactionalProducer:
    """Writes results and consumed offsets in one transaction, under one `transactional.id`.

    Owns one aiokafka producer and its transaction. Does not own the group membership (each commit is told its
    `GroupMember`), the ledger, or any retry: after the first failure it refuses all use.

    Life: `start` -> any number of `commit`, one after the other -> `close`; after a failure `discard`.
    """

    def __init__(
        self,
        *,
        settings: KafkaSettings,
        transactional_id: str,
        transaction_timeout_ms: int = 15_000,
        start_timeout_seconds: float = 30.0,
    ) -> None:
        check_client()
        self._settings = settings
        self._transactional_id = transactional_id
        self._start_timeout_seconds = start_timeout_seconds
        self._transaction_timeout_ms = transaction_timeout_ms
        self._producer = _Producer(
            **settings.client_kwargs(),
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=transaction_timeout_ms,
            request_timeout_ms=transaction_timeout_ms,
            acks="all",
            enable_idempotence=True,
            retry_backoff_ms=RETRY_MS,
        )
        self._usable = False
        self._closed = False

    @property
    def transactional_id(self) -> str:
        return self._transactional_id

    @property
    def usable(self) -> bool:
        """Started, and no failure since."""
        return self._usable

    async def start(self) -> None:
        """Take the transactional id: fences whoever held it, and waits until its open transaction is settled.

        Raises:
            BrokerUnavailable: no broker answered, or it did not settle the id, in time.
            BusError: the broker refuses this id (authorization, timeout out of its bounds).
        """
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                await start_when_reachable(self._producer.start, self._settings, self._start_timeout_seconds)
        except TimeoutError as error:
            await self.discard()
            raise BrokerUnavailable(
                f"no transaction coordinator at {self._settings.bootstrap_servers} gave out {self._transactional_id} "
                f"within {self._start_timeout_seconds:g} s; see the broker's log for __transaction_state"
            ) from error
        except kafka_errors.TransactionalIdAuthorizationFailed as error:
            await self.discard()
            raise BusError(
                f"the broker does not allow the transactional id {self._transactional_id}: "
                "grant Write and Describe on TransactionalId to this user"
            ) from error
        except kafka_errors.KafkaError as error:
            await self.discard()
            raise BusError(f"the broker refused the transactional id {self._transactional_id}: {error!r}") from error
        except BaseException:
            await self.discard()
            raise
        self._usable = True

    async def commit(
        self,
        *,
        batches: Batches,
        offsets: Mapping[TopicPartition, tuple[int, str]],
        group: GroupMember,
        on_phase: Callable[[Phase], None] | None = None,
    ) -> int | None:
        """Publish `batches` (topic, partition, batch) and commit `offsets` (next offset, metadata) as one transaction.

        `batches` may be made while they are iterated: what is ready is sent meanwhile. `offsets` are read when there are no
        more. Returns the time in epoch ms at which the broker appended the first batch; None without batches, or where the topic
        keeps the producer's time.

        Raises:
            ProducerFenced: another process took the transactional id; this process must stop.
            MemberFenced: the group's generation moved on; nothing was committed.
            RecordTooLarge: the broker refuses a batch for its size; nothing was committed.
            TransactionIndefinite: anything else; it may have been committed or not (so it is after a cancellation).
            BusError: wrong arguments, or use after a failure; nothing was begun.
        """
        self._check_arguments(batches, offsets, group)
        phase = _PhaseReport(on_phase)
        try:
            async with asyncio.timeout(self._transaction_timeout_ms / 1000):
                return await self._run_transaction(batches, offsets, group, phase)
        except BaseException as error:
            self._usable = False
            if not isinstance(error, Exception):
                self._producer.sender.silenced = True
                raise
            failure = self._explain(error, phase)
            if isinstance(failure, (MemberFenced, RecordTooLarge)) and not phase.ending:
                await self._abort()
            self._producer.sender.silenced = True
            raise failure from error

    async def discard(self) -> None:
        """Close without ending anything: what is open stays so until the id is taken again or its time is over."""
        self._usable = False
        if not self._closed:
            self._closed = True
            await self._producer.drop()

    async def close(self) -> None:
        """Close cleanly; after a failure the same as `discard`."""
        if not self._usable:
            await self.discard()
            return
        self._usable = False
        self._closed = True
        await self._producer.stop()

    def _check_arguments(
        self,
        batches: Batches,
        offsets: Mapping[TopicPartition, tuple[int, str]],
        group: GroupMember,
    ) -> None:
        if not self._usable:
            raise BusError(
                f"the producer {self._transactional_id} is not started or has failed: discard it, make a new one and "
                "read the committed state back"
            )
        if not batches and not offsets:
            raise BusError("a transaction needs records or offsets; this one has neither")
        if group.generation < 0 or not group.member_id:
            # The broker does not check a commit without member and generation at all.
            raise MemberFenced(f"not a member of {group.group_id} at the moment: join it before a commit")
        _check_metadata(offsets)

    async def _run_transaction(
        self,
        batches: Batches,
        offsets: Mapping[TopicPartition, tuple[int, str]],
        group: GroupMember,
        phase: _PhaseReport,
    ) -> int | None:
        producer = self._producer
        await producer.begin_transaction()
        phase.reached(Phase.BEGUN)
        append_ms = await self._produce(batches)
        phase.reached(Phase.SENT)
        _check_metadata(offsets)
        if offsets:
            producer.sender.member = group
            await producer.send_offsets_to_transaction(
                {tp: OffsetAndMetadata(offset, metadata) for tp, (offset, metadata) in offsets.items()}, group.group_id
            )
        phase.reached(Phase.OFFSETS_SENT)
        phase.ending = True
        await producer.commit_transaction()
        phase.reached(Phase.COMMITTED)
        return append_ms

    async def _produce(self, batches: Batches) -> int | None:
        """Send while the rest is still being built; returns when the broker has all of it, with its time of the first."""
        sender = self._producer.sender
        pipe = ProducePipe(
            client=self._producer.client,
            transaction=sender._txn_manager,
            timeout_ms=self._transaction_timeout_ms,
            retry_seconds=RETRY_MS / 1000,
        )
        sender.on_added = pipe.wake
        sender._txn_manager.wait_for_transaction_end().add_done_callback(lambda _: pipe.wake())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pipe.run(), name="batches of a transaction")
                async for topic, partition, batch in _one_by_one(batches):
                    await pipe.send(TopicPartition(topic, partition), batch)
                pipe.drain()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return pipe.append_ms

    def _explain(self, error: Exception, phase: _PhaseReport) -> BusError:
        """The error of ours for what went wrong."""
        causes = (error, self._producer.sender_error())
        if any(isinstance(cause, (kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch)) for cause in causes):
            return ProducerFenced(
                f"the transactional id {self._transactional_id} was taken by another process, or its transaction was "
                "aborted for its age: this process must stop, its successor goes on"
            )
        if isinstance(error, _MemberGone):
            return MemberFenced(
                f"the consumer group moved on without {self._transactional_id} ({error}): nothing was committed, "
                "read the assignment and the committed offsets again"
            )
        if isinstance(error, (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)):
            return RecordTooLarge(
                "the broker refuses a batch for its size: nothing was committed; send a smaller record, or raise "
                "max.message.bytes of the topic"
            )
        reached = phase.last or "nothing"
        return TransactionIndefinite(
            f"a transaction of {self._transactional_id} failed after '{reached}' ({error!r}): it may be committed or "
            "not; discard this producer, make a new one and read the committed state back"
        )

    async def _abort(self) -> None:
        """End the transaction so that readers need not wait for its timeout. Best effort: a new producer does the same."""
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._producer.abort_transaction()
        except (TimeoutError, kafka_errors.KafkaError, AssertionError) as error:
            _log.warning("the transaction of %s stays open until its id is taken: %r", self._transactional_id, error)


class _PhaseReport:
    """Tells the caller how far a transaction has come, and remembers it."""

    def __init__(self, on_phase: Callable[[Phase], None] | None) -> None:
        self._on_phase = on_phase
        self.last: Phase | None = None
        self.ending = False

    def reached(self, phase: Phase) -> None:
        self.last = phase
        if self._on_phase is not None:
            self._on_phase(phase)


async def fence(settings: KafkaSettings, transactional_id: str, *, timeout_seconds: float = 10.0) -> None:
    """Take another producer's transactional id for a moment: its open transaction is aborted, its next request refused.

    Returns when the broker has settled the id.

    Raises:
        BrokerUnavailable: it did not within `timeout_seconds`.
    """
    producer = TransactionalProducer(settings=settings, transactional_id=transactional_id, start_timeout_seconds=timeout_seconds)
    try:
        await producer.start()
    finally:
        await producer.discard()


def _check_metadata(offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
    for partition, (_, metadata) in offsets.items():
        if len(metadata.encode()) > MAX_METADATA_CHARS:
            raise BusError(
                f"the commit metadata of {partition} has {len(metadata.encode())} bytes, Kafka takes "
                f"{MAX_METADATA_CHARS}: hold results back until the ledger fits"
            )


async def _one_by_one(batches: Batches) -> AsyncIterator[tuple[str, int, RecordBatchWriter]]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch


def _consume(future: asyncio.Future[Any]) -> None:
    """Take note of a future's error, so that asyncio does not report it as forgotten."""
    future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
