"""What a transaction produces stands in each partition once and in order, whatever answers are lost and errors come between."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict, deque
from collections.abc import Awaitable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import aiokafka.errors as kafka_errors
import pytest
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from rayline.bus.produce import ProducePipe
from rayline.bus.record_batch import RecordBatchWriter

NOT_LEADER, OUT_OF_ORDER, TOO_LARGE, FENCED = 6, 45, 10, 47


class Fault(Enum):
    """What becomes of one request."""

    NONE = "taken and answered"
    REFUSED = "one of its partitions is refused for the moment"
    ANSWER_LOST = "taken, and the connection breaks before the answer"
    LOST = "the connection breaks before it arrives"


class Broker:
    """One node: keeps a log for each partition, takes a producer's batches in their sequence only, knows the last five again."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = deque(faults)
        self.logs: dict[TopicPartition, list[int]] = defaultdict(list)
        self.largest = 1 << 20
        self.fenced = False
        self._next: dict[TopicPartition, int] = defaultdict(int)
        self._recent: dict[TopicPartition, deque[int]] = defaultdict(lambda: deque(maxlen=5))

    def take(self, request: ProduceRequest) -> Any:
        refused = self.faults.popleft() if self.faults else Fault.NONE
        answer: list[tuple[str, list[tuple[Any, ...]]]] = []
        for topic, partitions in request._topics:
            for number, (partition, data) in enumerate(partitions):
                tp = TopicPartition(topic, partition)
                code = NOT_LEADER if refused is Fault.REFUSED and number == 0 else self._append(tp, data)
                answer.append((topic, [(partition, code, 0, 1_000, 0, [], None)]))
        return SimpleNamespace(topics=answer)

    def _append(self, tp: TopicPartition, data: bytes) -> int:
        if self.fenced:
            return FENCED
        if len(data) > self.largest:
            return TOO_LARGE
        batch = MemoryRecords(data).next_batch()
        assert batch is not None
        assert batch.validate_crc()
        if batch.base_sequence in self._recent[tp]:
            return 0
        if batch.base_sequence != self._next[tp]:
            return OUT_OF_ORDER
        numbers = [struct.unpack(">q", record.value)[0] for record in batch]
        self.logs[tp] += numbers
        self._next[tp] += len(numbers)
        self._recent[tp].append(batch.base_sequence)
        return 0


class Connection:
    """Answers its requests one after the other until a fault breaks it, with all that are under way."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._under_way: deque[tuple[ProduceRequest, asyncio.Future[Any]]] = deque()
        self.most_under_way = 0
        self.broken = False
        self._task = asyncio.create_task(self._serve())

    def send(self, request: ProduceRequest) -> Awaitable[Any]:
        if self.broken:
            raise kafka_errors.KafkaConnectionError
        answer = asyncio.get_running_loop().create_future()
        self._under_way.append((request, answer))
        self.most_under_way = max(self.most_under_way, len(self._under_way))
        return answer

    async def _serve(self) -> None:
        while not self.broken:
            await asyncio.sleep(0)
            if not self._under_way:
                continue
            for _ in range(3):
                await asyncio.sleep(0)
            request, answer = self._under_way[0]
            fault = self._broker.faults[0] if self._broker.faults else Fault.NONE
            if fault in (Fault.LOST, Fault.ANSWER_LOST):
                if fault is Fault.ANSWER_LOST:
                    self._broker.take(request)
                else:
                    self._broker.faults.popleft()
                self.broken = True
                for _, waiting in self._under_way:
                    waiting.set_exception(kafka_errors.KafkaConnectionError())
                return
            response = self._broker.take(request)
            self._under_way.popleft()
            answer.set_result(response)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Client:
    """What the pipe asks of aiokafka's client."""

    def __init__(self, broker: Broker) -> None:
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: 1)
        self.connections: list[Connection] = []
        self._broker = broker

    async def _get_conn(self, _node: int) -> Connection:
        if not self.connections or self.connections[-1].broken:
            self.connections.append(Connection(self._broker))
        return self.connections[-1]

    async def force_metadata_update(self) -> bool:
        return True


async def produced(broker: Broker, batches: list[tuple[int, list[int]]]) -> Client:
    """Produce batches of (partition, numbers) in one transaction."""
    client, transaction = Client(broker), TransactionManager("t", 1_000)
    transaction.set_pid_and_epoch(7, 0)
    transaction.begin_transaction()
    pipe = ProducePipe(client=client, transaction=transaction, timeout_ms=1_000, retry_seconds=0.0)

    async def add_partitions() -> None:
        while True:
            await asyncio.sleep(0)
            for tp in list(transaction.partitions_to_add()):
                transaction.partition_added(tp)
                pipe.wake()

    adding = asyncio.create_task(add_partitions())
    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(pipe.run())
            for partition, numbers in batches:
                writer = RecordBatchWriter()
                for number in numbers:
                    writer.append(key=None, value=struct.pack(">q", number))
                await pipe.send(TopicPartition("t", partition), writer)
            pipe.drain()
    finally:
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        for connection in client.connections:
            await connection.close()
    return client


transactions = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=25)


@given(transactions, st.lists(st.sampled_from(Fault), max_size=8))
def test_each_record_stands_once_and_in_order_whatever_is_refused_or_lost(
    sizes: list[tuple[int, int]], faults: list[Fault]
) -> None:
    broker = Broker(faults)
    batches: list[tuple[int, list[int]]] = []
    wanted: dict[TopicPartition, list[int]] = defaultdict(list)
    number = 0
    for partition, size in sizes:
        numbers = list(range(number, number + size))
        number += size
        batches.append((partition, numbers))
        wanted[TopicPartition("t", partition)] += numbers
    asyncio.run(produced(broker, batches))
    assert dict(broker.logs) == dict(wanted)


def test_a_request_is_with_the_broker_before_the_one_before_is_answered() -> None:
    client = asyncio.run(produced(Broker([]), [(0, [n]) for n in range(10)]))
    assert client.connections[0].most_under_way == 2


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"largest": 10}, kafka_errors.MessageSizeTooLargeError),
        ({"fenced": True}, kafka_errors.ProducerFenced),
    ],
    ids=["too large", "fenced"],
)
def test_what_no_retry_can_mend_ends_it(change: dict[str, Any], wanted: type[Exception]) -> None:
    broker = Broker([])
    for name, value in change.items():
        setattr(broker, name, value)
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(produced(broker, [(0, [1]), (1, [2]), (0, [3])]))
    assert isinstance(raised.value.exceptions[0], wanted)
