"""Kafka: the only place where Rayline touches aiokafka."""

from __future__ import annotations

from aiokafka.structs import ConsumerRecord, TopicPartition

from rayline.bus.protocol import GroupMember
from rayline.bus.settings import KafkaSettings, SaslMechanism, SecurityProtocol
from rayline.bus.transactions import MAX_METADATA_CHARS, BatchBuilder, Phase, TransactionalProducer, fence

__all__ = [
    "MAX_METADATA_CHARS",
    "BatchBuilder",
    "ConsumerRecord",
    "GroupMember",
    "KafkaSettings",
    "Phase",
    "SaslMechanism",
    "SecurityProtocol",
    "TopicPartition",
    "TransactionalProducer",
    "fence",
]
