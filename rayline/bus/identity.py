"""Telling a topic from another one that was made later under the same name (Metadata v10 carries topic ids)."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

_STRING: Final = CompactString("utf-8")
_TAGS: Final = ("tags", TaggedFields)
_NO_ERROR: Final = 0
_UNKNOWN_TOPIC: Final = 3
_HALF_BITS: Final = 64
_HALF_MASK: Final = 2**_HALF_BITS - 1


class MetadataResponseV10(Response):
    """`topics`: (error_code, name, id_high, id_low, is_internal, partitions, operations, tags)."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _STRING), ("port", Int32), ("rack", _STRING), _TAGS),
        ),
        ("cluster_id", _STRING),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _STRING),
                ("id_high", Int64),
                ("id_low", Int64),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("operations", Int32),
                _TAGS,
            ),
        ),
        ("operations", Int32),
        _TAGS,
    )


class MetadataRequestV10(RequestStruct):
    """`topics`: (id_high, id_low, name, tags); asked for by name, the id is zero."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponseV10
    SCHEMA = Schema(
        ("topics", CompactArray(("id_high", Int64), ("id_low", Int64), ("name", _STRING), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class TopicIds(Request[MetadataRequestV10]):
    """Asks for topics by name without making them."""

    API_KEY = 3

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[MetadataRequestV10]) -> MetadataRequestV10:
        return request_struct_class([(0, 0, topic, {}) for topic in self._topics], False, False, False, {})


async def topic_ids(client: AIOKafkaClient, topics: Collection[str]) -> dict[str, uuid.UUID | None]:
    """Id of each of `topics`, None for one that does not exist; one that the broker is silent about is left out.

    Raises:
        KafkaError: no broker answers, or it is older than Kafka 2.8.
    """
    response = await client.send(client.get_random_node(), TopicIds(topics))
    ids: dict[str, uuid.UUID | None] = {}
    for code, name, high, low, *_ in response.topics:
        if code == _NO_ERROR:
            ids[name] = uuid.UUID(int=(high & _HALF_MASK) << _HALF_BITS | low & _HALF_MASK)
        elif code == _UNKNOWN_TOPIC:
            ids[name] = None
    return ids
