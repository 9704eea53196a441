"""The batches of one transaction on their way to the broker.

aiokafka's own sender waits for each answer before it sends a node anything more, so that a busy event loop stands between any
two requests. Here the next request is with the broker before the one before is answered, and takes along what all partitions
have ready by then. Order and exactly-once are the broker's, by producer id and sequence number.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiokafka.errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import TopicPartition

from rayline.bus.record_batch import RecordBatchWriter
from rayline.waits import news_by

_log = logging.getLogger(__name__)

# One that the broker works on, and one that lies ready for it. It remembers five batches of a producer in a partition.
MAX_REQUESTS: Final = 2
MAX_WAITING_BYTES: Final = 2 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Batch:
    """The bytes of a batch, which a retry sends again as they are; whether the broker said that it `has` them."""

    data: bytes
    has: bool = False


@dataclass(slots=True, eq=False)
class _Flow:
    """What goes to one partition, in its order: batches that are `flying` before those in `queue`.

    `error` is the first that was answered since; nothing is sent then until all that fly are answered.
    """

    queue: deque[_Batch] = field(default_factory=deque)
    flying: deque[_Batch] = field(default_factory=deque)
    unanswered: int = 0
    error: BaseException | None = None


class ProducePipe:
    """Owns the batches of one transaction from `send` until the broker has them. Does not own the producer's identity, the
    transaction, or connections.

    Life: `run` in a task, beside it `send` any number of times → `drain`; `run` returns when the broker has everything, and
    raises the first error that a retry cannot mend.
    """

    def __init__(self, *, client: AIOKafkaClient, transaction: TransactionManager, timeout_ms: int, retry_seconds: float) -> None:
        self._client = client
        self._transaction = transaction
        self._ended = transaction.wait_for_transaction_end()
        self._timeout_ms = timeout_ms
        self._retry_seconds = retry_seconds
        self._flows: dict[TopicPartition, _Flow] = {}
        self._requests: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._draining = False
        self._retry_at = 0.0
        self.append_ms: int | None = None  # epoch ms at which the broker appended the first answered batch; None: not told

    async def send(self, tp: TopicPartition, batch: RecordBatchWriter) -> None:
        """Number the batch and hand it over; waits while much is on its way already."""
        flow = self._flows.get(tp)
        if flow is None:
            flow = self._flows[tp] = _Flow()
            self._transaction.maybe_add_partition_to_txn(tp)
        transaction = self._transaction
        sequence = transaction.sequence_number(tp)
        transaction.increment_sequence_number(tp, batch.record_count())
        data = batch.build(transaction.producer_id, transaction.producer_epoch, sequence)
        flow.queue.append(_Batch(data))
        self._waiting_bytes += len(data)
        self._news.set()
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._room.clear()
            await self._room.wait()

    def drain(self) -> None:
        """Nothing more comes."""
        self._draining = True
        self._news.set()

    def wake(self) -> None:
        """The transaction has more partitions, or has ended."""
        self._news.set()

    async def run(self) -> None:
        try:
            while not (self._draining and not any(flow.queue or flow.flying for flow in self._flows.values())):
                self._news.clear()
                if self._failure is not None:
                    raise self._failure
                if self._ended.done():
                    self._ended.result()
                    raise kafka_errors.IllegalOperation()
                if not await self._send_ready():
                    await self._wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait(self) -> None:
        if not self._retry_at:
            await self._news.wait()
            return
        if time.monotonic() < self._retry_at and await news_by(self._news, self._retry_at):
            return
        await self._client.force_metadata_update()
        self._retry_at = 0.0
        self._news.set()

    async def _send_ready(self) -> bool:
        """One request to each node that has room for it, with the next batch of each of its partitions; whether any was sent."""
        sent = False
        if self._retry_at:
            return sent
        ready: defaultdict[int, dict[TopicPartition, _Batch]] = defaultdict(dict)
        for tp, flow in self._flows.items():
            if not flow.queue or flow.error is not None or tp not in self._transaction.txn_partitions:
                continue
            leader = self._client.cluster.leader_for_partition(tp)
            if leader in (None, -1):
                self._retry()
            elif self._requests[leader] < MAX_REQUESTS:
                ready[leader][tp] = flow.queue[0]
        for node, batches in ready.items():
            connection = await self._client._get_conn(node)
            if connection is None:
                self._retry()
                continue
            try:
                answer = connection.send(self._request(batches))
            except kafka_errors.KafkaConnectionError:
                self._retry()
                continue
            for tp in batches:
                flow = self._flows[tp]
                flow.flying.append(flow.queue.popleft())
                flow.unanswered += 1
            self._requests[node] += 1
            sent = True
            task = asyncio.create_task(self._answered(node, batches, answer), name="answer to a produce request")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return sent

    def _request(self, batches: Mapping[TopicPartition, _Batch]) -> ProduceRequest:
        topics: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for tp, batch in batches.items():
            topics[tp.topic].append((tp.partition, batch.data))
        return ProduceRequest(
            transactional_id=self._transaction.transactional_id,
            required_acks=-1,
            timeout=self._timeout_ms,
            topics=list(topics.items()),
        )

    async def _answered(self, node: int, sent: Mapping[TopicPartition, _Batch], answer: Any) -> None:
        try:
            response = await answer
            found = {TopicPartition(topic, one[0]): one for topic, partitions in response.topics for one in partitions}
            outcomes = {tp: _outcome(found[tp]) for tp in sent}
        except TimeoutError:
            outcomes = dict.fromkeys(sent, kafka_errors.RequestTimedOutError())
        except kafka_errors.KafkaError as error:
            outcomes = dict.fromkeys(sent, error)
        self._requests[node] -= 1
        for tp, outcome in outcomes.items():
            self._settle(tp, sent[tp], outcome)
        self._news.set()

    def _settle(self, tp: TopicPartition, batch: _Batch, outcome: int | BaseException) -> None:
        """A batch is answered: with the broker's time of it, or with an error."""
        flow = self._flows[tp]
        flow.unanswered -= 1
        if isinstance(outcome, int):
            batch.has = True
            self._waiting_bytes -= len(batch.data)
            self._room.set()
            if self.append_ms is None and outcome >= 0:
                self.append_ms = outcome
        elif flow.error is None:
            flow.error = outcome
            if isinstance(outcome, kafka_errors.InvalidProducerEpoch):
                self._failure = self._failure or kafka_errors.ProducerFenced()
            elif not getattr(outcome, "retriable", False):
                self._failure = self._failure or outcome
        if flow.error is None:
            while flow.flying and flow.flying[0].has:
                flow.flying.popleft()
        elif not flow.unanswered and self._failure is None:
            # What flew behind one that failed failed, too, or stands behind an earlier try of it: a repetition is harmless.
            again = [one for one in flow.flying if not one.has]
            _log.warning("%d batches to %s/%d are sent again: %r", len(again), tp.topic, tp.partition, flow.error)
            flow.queue.extendleft(reversed(again))
            flow.flying.clear()
            flow.error = None
            self._retry()

    def _retry(self) -> None:
        """Look where the partitions' leaders are, after a moment."""
        self._retry_at = time.monotonic() + self._retry_seconds


def _outcome(partition: tuple[Any, ...]) -> int | BaseException:
    """Of one partition's part of an answer: the time of the append (-1: the broker does not tell), or the error."""
    kind = kafka_errors.for_code(partition[1])
    if kind is kafka_errors.NoError or kind is kafka_errors.DuplicateSequenceNumber:
        time_ms: int = partition[3]
        return time_ms
    error: BaseException = kind()
    return error
