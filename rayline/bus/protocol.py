"""The two Kafka messages that aiokafka 0.14 does not speak, and the check that aiokafka is still what they rely on.

TxnOffsetCommit v3 carries the consumer's generation, member and instance (KIP-447): the broker then refuses offsets of
a member that the group has left behind. OffsetFetch v7 carries `require_stable`: the broker then refuses to name an
offset while a transaction that may change it is open. Without either, a takeover publishes results twice.
"""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiokafka
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from aiokafka.producer.sender import Sender, TxnOffsetCommitHandler
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition

from rayline.bus.tolerant_records import TolerantRecords
from rayline.errors import UnsupportedClient

_STRING: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
NO_OFFSET: Final = -1
_NO_LEADER_EPOCH: Final = -1


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member of a consumer group in one generation: what a transaction must name to commit the group's offsets."""

    group_id: str
    generation: int
    member_id: str
    instance_id: str | None


class TxnOffsetCommitResponseV3(Response):
    """`errors`: (topic, [(partition, error_code, tags)], tags)."""

    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "errors",
            CompactArray(
                ("topic", _STRING),
                ("partitions", CompactArray(("partition", Int32), ("error_code", Int16), _TAGS)),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class TxnOffsetCommitRequestV3(RequestStruct):
    """`topics`: (topic, [(partition, offset, leader_epoch, metadata, tags)], tags)."""

    FLEXIBLE_VERSION = True
    API_KEY = 28
    API_VERSION = 3
    RESPONSE_TYPE = TxnOffsetCommitResponseV3
    SCHEMA = Schema(
        ("transactional_id", _STRING),
        ("group_id", _STRING),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", _STRING),
        ("group_instance_id", _STRING),
        (
            "topics",
            CompactArray(
                ("topic", _STRING),
                (
                    "partitions",
                    CompactArray(("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", _STRING), _TAGS),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class TxnOffsetCommit(Request[TxnOffsetCommitRequestV3]):
    """Offsets of one group member, as part of the open transaction of one producer."""

    API_KEY = 28

    def __init__(
        self,
        *,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        member: GroupMember,
        offsets: Mapping[TopicPartition, tuple[int, str]],
    ) -> None:
        self._transactional_id = transactional_id
        self._producer_id = producer_id
        self._producer_epoch = producer_epoch
        self._member = member
        self._offsets = offsets

    def build(self, request_struct_class: type[TxnOffsetCommitRequestV3]) -> TxnOffsetCommitRequestV3:
        by_topic: dict[str, list[tuple[int, int, int, str, dict[int, bytes]]]] = defaultdict(list)
        for (topic, partition), (offset, metadata) in sorted(self._offsets.items()):
            by_topic[topic].append((partition, offset, _NO_LEADER_EPOCH, metadata, {}))
        return request_struct_class(
            self._transactional_id,
            self._member.group_id,
            self._producer_id,
            self._producer_epoch,
            self._member.generation,
            self._member.member_id,
            self._member.instance_id,
            [(topic, partitions, {}) for topic, partitions in by_topic.items()],
            {},
        )


class OffsetFetchResponseV7(Response):
    """`topics`: (topic, [(partition, offset, leader_epoch, metadata, error_code, tags)], tags)."""

    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _STRING),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _STRING),
                        ("error_code", Int16),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("error_code", Int16),
        _TAGS,
    )


class OffsetFetchRequestV7(RequestStruct):
    """`topics`: (topic, [partition], tags)."""

    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = OffsetFetchResponseV7
    SCHEMA = Schema(
        ("group_id", _STRING),
        ("topics", CompactArray(("topic", _STRING), ("partitions", CompactArray(Int32)), _TAGS)),
        ("require_stable", Boolean),
        _TAGS,
    )


class OffsetFetch(Request[OffsetFetchRequestV7]):
    """Committed offsets of a group; the broker answers UNSTABLE_OFFSET_COMMIT while a transaction may change one."""

    API_KEY = 9

    def __init__(self, group_id: str, partitions: Iterable[TopicPartition], *, require_stable: bool = True) -> None:
        self._group_id = group_id
        self._require_stable = require_stable
        self._partitions = sorted(partitions)

    def build(self, request_struct_class: type[OffsetFetchRequestV7]) -> OffsetFetchRequestV7:
        by_topic: dict[str, list[int]] = defaultdict(list)
        for topic, partition in self._partitions:
            by_topic[topic].append(partition)
        return request_struct_class(
            self._group_id, [(topic, partitions, {}) for topic, partitions in by_topic.items()], self._require_stable, {}
        )


_SHAPE: Final[tuple[tuple[type[Any], str, tuple[str, ...]], ...]] = (
    (Request, "build", ("self", "request_struct_class")),
    (Sender, "_do_txn_offset_commit", ("self", "offsets", "group_id")),
    (Sender, "_do_txn_commit", ("self", "commit_result")),
    (Sender, "_do_add_partitions_to_txn", ("self", "tps")),
    (Sender, "_find_coordinator", ("self", "coordinator_type", "coordinator_key")),
    (TxnOffsetCommitHandler, "__init__", ("self", "sender", "offsets", "group_id")),
    (TxnOffsetCommitHandler, "create_request", ("self",)),
    (TxnOffsetCommitHandler, "handle_response", ("self", "resp")),
    (TransactionManager, "error_transaction", ("self", "exc")),
    (TransactionManager, "offset_committed", ("self", "tp", "offset", "group_id")),
    (TransactionManager, "maybe_add_partition_to_txn", ("self", "tp")),
    (TransactionManager, "sequence_number", ("self", "tp")),
    (TransactionManager, "increment_sequence_number", ("self", "tp", "increment")),
    (ProduceRequest, "__init__", ("self", "transactional_id", "required_acks", "timeout", "topics")),
    (AIOKafkaConnection, "send", ("self", "request", "expect_response")),
    (AIOKafkaClient, "_get_conn", ("self", "node_id", "group", "no_hint")),
    (AIOKafkaClient, "_wait_on_metadata", ("self", "topic")),
    (PartitionRecords, "_consumer_record", ("self", "tp", "record")),
    (AIOKafkaClient, "send", ("self", "node_id", "request", "group")),
    (GroupCoordinator, "_do_fetch_commit_offsets", ("self", "partitions")),
    (GroupCoordinator, "_send_req", ("self", "request")),
    (GroupCoordinator, "ensure_coordinator_known", ("self",)),
    (GroupCoordinator, "coordinator_dead", ("self",)),
    (SubscriptionState, "assign_from_subscribed", ("self", "assignment")),
    (TopicPartitionState, "seek", ("self", "position")),
    (TopicPartitionState, "pause", ("self",)),
)


@functools.cache
def check_client() -> None:
    """See that aiokafka has the inner shape that this package overrides; every client of the bus calls it first.

    Raises:
        UnsupportedClient: something moved; names it. An upgrade must be checked with `tests/integration/bus`.
    """
    # There is no other way to give it a reader of our own.
    fetcher.MemoryRecords = TolerantRecords
    version: str = aiokafka.__version__
    moved = [
        f"{owner.__name__}.{name}"
        for owner, name, parameters in _SHAPE
        if (method := getattr(owner, name, None)) is None or tuple(inspect.signature(method).parameters) != parameters
    ]
    if not version.startswith("0.14.") or moved:
        what = f"these moved: {', '.join(moved)}" if moved else "its version was never checked"
        raise UnsupportedClient(
            f"aiokafka {version} is not the one that Rayline's transactions were written for ({what}): "
            "install aiokafka 0.14, or adapt rayline/bus and run tests/integration/bus"
        )
