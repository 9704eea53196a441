"""Kafka: the only place where Rayline touches aiokafka."""

from __future__ import annotations

from aiokafka.structs import TopicPartition

from rayline.bus.admin import check_reachable, delete_topics, describe, ensure_topics, missing_topics
from rayline.bus.consumer import GroupConsumer, RebalanceListener
from rayline.bus.log import CompactedLog, Delivery, LogRecord, Publisher
from rayline.bus.protocol import NO_OFFSET, GroupMember
from rayline.bus.record_batch import RecordBatchWriter
from rayline.bus.settings import KafkaSettings, SaslMechanism, SecurityProtocol
from rayline.bus.transactions import MAX_METADATA_CHARS, Phase, TransactionalProducer, fence

__all__ = [
    "MAX_METADATA_CHARS",
    "NO_OFFSET",
    "CompactedLog",
    "Delivery",
    "GroupConsumer",
    "GroupMember",
    "KafkaSettings",
    "LogRecord",
    "Phase",
    "Publisher",
    "RebalanceListener",
    "RecordBatchWriter",
    "SaslMechanism",
    "SecurityProtocol",
    "TopicPartition",
    "TransactionalProducer",
    "check_reachable",
    "delete_topics",
    "describe",
    "ensure_topics",
    "fence",
    "missing_topics",
]
