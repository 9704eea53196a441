"""The batches of one transaction on their way to the broker, several of each partition in flight at once.

aiokafka's own sender waits for each answer before it sends a node anything more, so that a busy event loop stands between any
two requests. Here a batch leaves when it is built. Order and exactly-once are the broker's, by producer id and sequence number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiokafka.errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import TopicPartition

from rayline.bus.record_batch import RecordBatchWriter

_log = logging.getLogger(__name__)

# The broker knows the last five batches of a producer in a partition again, so no more may be uncertain at once.
MAX_IN_FLIGHT: Final = 5
MAX_WAITING_BYTES: Final = 1024 * 1024


@dataclass(slots=True, eq=False)
class _Sent:
    """A batch's bytes, which a retry sends again as they are; `answer` is the broker's, while it is in flight."""

    data: bytes
    answer: asyncio.Future[Any] | None = None


@dataclass(slots=True, eq=False)
class _Flow:
    """What goes to one partition, in its order: `queue` after `flying`."""

    tp: TopicPartition
    queue: deque[_Sent] = field(default_factory=deque)
    flying: deque[_Sent] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled():
            # Taken note of here, because after an error nobody looks at those behind it.
            answer.exception()
        self.news.set()


class ProducePipe:
    """Owns the batches of one transaction from `send` until the broker has them. Does not own the producer's identity, the
    transaction, or connections.

    Life: `send` any number of times → `drain`; the tasks of the partitions run in the group that it is given, which ends with
    the first error that a retry cannot mend.
    """

    def __init__(
        self,
        *,
        client: AIOKafkaClient,
        transaction: TransactionManager,
        added: Callable[[TopicPartition], Awaitable[None]],
        tasks: asyncio.TaskGroup,
        timeout_ms: int,
        retry_seconds: float,
    ) -> None:
        self._client = client
        self._transaction = transaction
        self._added = added
        self._tasks = tasks
        self._timeout_ms = timeout_ms
        self._retry_seconds = retry_seconds
        self._flows: dict[TopicPartition, _Flow] = {}
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._draining = False
        self.append_ms: int | None = None  # epoch ms at which the broker appended the first answered batch; None: not told

    async def send(self, tp: TopicPartition, batch: RecordBatchWriter) -> None:
        """Number the batch and hand it over; waits while much is on its way already."""
        flow = self._flows.get(tp)
        if flow is None:
            flow = self._flows[tp] = _Flow(tp)
            self._transaction.maybe_add_partition_to_txn(tp)
            self._tasks.create_task(self._run(flow), name=f"results to {tp.topic}/{tp.partition}")
        transaction = self._transaction
        sequence = transaction.sequence_number(tp)
        transaction.increment_sequence_number(tp, batch.record_count())
        data = batch.build(transaction.producer_id, transaction.producer_epoch, sequence)
        flow.queue.append(_Sent(data))
        flow.news.set()
        self._waiting_bytes += len(data)
        # Even where there is room, what was handed over should leave before the next batch is built.
        await asyncio.sleep(0)
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._room.clear()
            await self._room.wait()

    def drain(self) -> None:
        """Nothing more comes: the tasks end when the broker has everything."""
        self._draining = True
        for flow in self._flows.values():
            flow.news.set()

    async def _run(self, flow: _Flow) -> None:
        await self._added(flow.tp)
        while flow.queue or flow.flying or not self._draining:
            if flow.queue and len(flow.flying) < MAX_IN_FLIGHT:
                await self._write(flow)
            flow.news.clear()
            if self._settle(flow):
                continue
            if flow.flying and _failed(flow.flying[0]):
                await self._take_back(flow)
            elif not (flow.queue and len(flow.flying) < MAX_IN_FLIGHT) and not (self._draining and not flow.flying):
                await flow.news.wait()

    async def _write(self, flow: _Flow) -> None:
        """Send the next batch to the partition's leader, if there is one."""
        tp, sent = flow.tp, flow.queue[0]
        await self._client._wait_on_metadata(tp.topic)
        leader = self._client.cluster.leader_for_partition(tp)
        connection = None if leader in (None, -1) else await self._client._get_conn(leader)
        if connection is None:
            await self._look_again()
            return
        request = ProduceRequest(
            transactional_id=self._transaction.transactional_id,
            required_acks=-1,
            timeout=self._timeout_ms,
            topics=[(tp.topic, [(tp.partition, sent.data)])],
        )
        try:
            sent.answer = asyncio.ensure_future(connection.send(request))
        except kafka_errors.KafkaConnectionError:
            await self._look_again()
            return
        flow.flying.append(flow.queue.popleft())
        sent.answer.add_done_callback(flow.answered)

    def _settle(self, flow: _Flow) -> bool:
        """Let go of what the broker has; whether there was anything."""
        settled = False
        while flow.flying:
            answer = flow.flying[0].answer
            if answer is None or not answer.done() or ((error := _error_of(answer)) is not None and not _known(error)):
                break
            sent = flow.flying.popleft()
            if self.append_ms is None:
                self.append_ms = _append_ms(answer)
            self._waiting_bytes -= len(sent.data)
            settled = True
        if settled:
            self._room.set()
        return settled

    async def _take_back(self, flow: _Flow) -> None:
        """The first in flight failed, so that all behind it fail, too: send them again in their order, if that may help.

        Raises the broker's error otherwise.
        """
        first = flow.flying[0].answer
        assert first is not None
        error = _error_of(first)
        assert error is not None
        if isinstance(error, kafka_errors.InvalidProducerEpoch):
            raise kafka_errors.ProducerFenced from error
        if not getattr(error, "retriable", False):
            raise error
        await asyncio.wait([sent.answer for sent in flow.flying if sent.answer is not None])
        _log.warning("batches to %s/%d are sent again: %r", flow.tp.topic, flow.tp.partition, error)
        while flow.flying:
            sent = flow.flying.pop()
            sent.answer = None
            flow.queue.appendleft(sent)
        if getattr(error, "invalid_metadata", False):
            await self._look_again()
        else:
            await asyncio.sleep(self._retry_seconds)

    async def _look_again(self) -> None:
        """Where the partition's leader is may have changed."""
        await asyncio.sleep(self._retry_seconds)
        await self._client.force_metadata_update()


def _failed(sent: _Sent) -> bool:
    return sent.answer is not None and sent.answer.done() and _error_of(sent.answer) is not None


def _known(error: BaseException) -> bool:
    """The broker has had this batch before."""
    return isinstance(error, kafka_errors.DuplicateSequenceNumber)


def _partition_answer(answer: asyncio.Future[Any]) -> tuple[Any, ...]:
    [(_, [partition])] = answer.result().topics
    found: tuple[Any, ...] = partition
    return found


def _error_of(answer: asyncio.Future[Any]) -> BaseException | None:
    """What went wrong with a request that is answered, or ended without an answer."""
    error = answer.exception()
    if isinstance(error, TimeoutError):
        return kafka_errors.RequestTimedOutError()
    if error is not None:
        return error
    kind = kafka_errors.for_code(_partition_answer(answer)[1])
    return None if kind is kafka_errors.NoError else kind()


def _append_ms(answer: asyncio.Future[Any]) -> int | None:
    time_ms: int = _partition_answer(answer)[3]
    return time_ms if time_ms >= 0 else None
