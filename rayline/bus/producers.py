"""Who holds transactions open on a partition: DescribeProducers (KIP-664) and ListTransactions, which aiokafka does not speak."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields
from aiokafka.structs import TopicPartition

from rayline.bus.admin import admin_client
from rayline.bus.settings import KafkaSettings
from rayline.errors import BusError

_STRING: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
_NO_TRANSACTION: Final = -1
_METADATA_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """`start_offset` is its first record in the partition; `transactional_id` is None where the broker does not tell."""

    producer_id: int
    producer_epoch: int
    start_offset: int
    transactional_id: str | None = None

    def text(self) -> str:
        name = "" if self.transactional_id is None else f" (transactional.id {self.transactional_id})"
        return f"producer {self.producer_id}{name}"


class DescribeProducersResponseV0(Response):
    """`topics`: (name, [(partition, error, message, [(id, epoch, sequence, at, coordinator, start, tags)], tags)], tags)."""

    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", _STRING),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", _STRING),
                        (
                            "producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("start_offset", Int64),
                                _TAGS,
                            ),
                        ),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class DescribeProducersRequestV0(RequestStruct):
    """`topics`: (name, [partition], tags)."""

    FLEXIBLE_VERSION = True
    API_KEY = 61
    API_VERSION = 0
    RESPONSE_TYPE = DescribeProducersResponseV0
    SCHEMA = Schema(("topics", CompactArray(("name", _STRING), ("partitions", CompactArray(Int32)), _TAGS)), _TAGS)


class DescribeProducers(Request[DescribeProducersRequestV0]):
    """The producers that lately wrote to partitions; to be sent to their leader."""

    API_KEY = 61

    def __init__(self, partitions: Iterable[TopicPartition]) -> None:
        self._partitions = sorted(partitions)

    def build(self, request_struct_class: type[DescribeProducersRequestV0]) -> DescribeProducersRequestV0:
        by_topic: dict[str, list[int]] = defaultdict(list)
        for topic, partition in self._partitions:
            by_topic[topic].append(partition)
        return request_struct_class([(topic, partitions, {}) for topic, partitions in by_topic.items()], {})


class ListTransactionsResponseV0(Response):
    """`transactions`: (transactional id, producer id, state, tags)."""

    API_KEY = 66
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("unknown_state_filters", CompactArray(_STRING)),
        (
            "transactions",
            CompactArray(("transactional_id", _STRING), ("producer_id", Int64), ("state", _STRING), _TAGS),
        ),
        _TAGS,
    )


class ListTransactionsRequestV0(RequestStruct):
    """Empty filters stand for everything."""

    FLEXIBLE_VERSION = True
    API_KEY = 66
    API_VERSION = 0
    RESPONSE_TYPE = ListTransactionsResponseV0
    SCHEMA = Schema(("state_filters", CompactArray(_STRING)), ("producer_id_filters", CompactArray(Int64)), _TAGS)


class ListTransactions(Request[ListTransactionsRequestV0]):
    """The transactional ids of some producers, as far as the asked broker coordinates them."""

    API_KEY = 66

    def __init__(self, producer_ids: Collection[int]) -> None:
        self._producer_ids = sorted(producer_ids)

    def build(self, request_struct_class: type[ListTransactionsRequestV0]) -> ListTransactionsRequestV0:
        return request_struct_class([], self._producer_ids, {})


async def open_transactions(
    settings: KafkaSettings, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[OpenTransaction, ...]]:
    """The transactions that are open on these partitions now, the oldest first.

    Raises:
        BrokerUnavailable: no broker answers.
        BusError: the broker refuses (READ on the topic is needed), or is too old to tell (before Apache Kafka 2.8).
    """
    async with admin_client(settings) as client:
        found = await _producers(client, partitions)
        ids = {one.producer_id for transactions in found.values() for one in transactions}
        names = await _names(client, ids) if ids else {}
    return {
        tp: tuple(
            OpenTransaction(one.producer_id, one.producer_epoch, one.start_offset, names.get(one.producer_id))
            for one in sorted(transactions, key=lambda one: one.start_offset)
        )
        for tp, transactions in found.items()
    }


async def _producers(
    client: AIOKafkaAdminClient, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, list[OpenTransaction]]:
    kafka: Any = client._client
    for topic in {tp.topic for tp in partitions}:
        async with asyncio.timeout(_METADATA_SECONDS):
            await kafka._wait_on_metadata(topic)
    by_leader: dict[int, list[TopicPartition]] = defaultdict(list)
    for tp in partitions:
        by_leader[kafka.cluster.leader_for_partition(tp)].append(tp)
    found: dict[TopicPartition, list[OpenTransaction]] = {}
    for leader, led in by_leader.items():
        response = await kafka.send(leader, DescribeProducers(led))
        for topic, answers, _ in response.topics:
            for partition, code, message, producers, _ in answers:
                if code:
                    raise BusError(f"the broker does not tell who writes to {topic}/{partition}: {message or f'error {code}'}")
                found[TopicPartition(topic, partition)] = [
                    OpenTransaction(producer_id, epoch, start)
                    for producer_id, epoch, _, _, _, start, _ in producers
                    if start != _NO_TRANSACTION
                ]
    return found


async def _names(client: AIOKafkaAdminClient, producer_ids: Collection[int]) -> dict[int, str]:
    """Transactional ids by producer id; those that no broker may tell us are left out."""
    kafka: Any = client._client
    names: dict[int, str] = {}
    for broker in kafka.cluster.brokers():
        response = await kafka.send(broker.nodeId, ListTransactions(producer_ids))
        names |= {producer_id: name for name, producer_id, _, _ in response.transactions or ()}
    return names
