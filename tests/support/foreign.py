"""Kafka through a client that is not ours (librdkafka): what others see of the topics."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from rayline.bus import KafkaSettings


@dataclass(frozen=True)
class Seen:
    """One record as a `read_committed` consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def read_committed(settings: KafkaSettings, topic: str, *, timeout_seconds: float = 20.0) -> list[Seen]:
    """All records of `topic` up to the end that a committed read reaches now, in the order of each partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "foreign-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=timeout_seconds).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        open_partitions = set(partitions)
        seen: list[Seen] = []
        deadline = time.monotonic() + timeout_seconds
        while open_partitions:
            message = consumer.poll(0.5)
            if message is None:
                assert time.monotonic() < deadline, f"{topic}: no end of {open_partitions} in {timeout_seconds} s"
            elif message.error() is None:
                headers = tuple((k, v) for k, v in message.headers() or ())
                seen.append(Seen(message.partition(), message.offset(), message.key(), message.value(), headers))
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                open_partitions.discard(message.partition())
        return seen
    finally:
        consumer.close()


def produce(settings: KafkaSettings, topic: str, values: Iterable[bytes], *, partitions: int = 1) -> None:
    """Write `values` round robin over the partitions and wait until all are there."""
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "linger.ms": 5})
    for index, value in enumerate(values):
        producer.produce(topic, value, partition=index % partitions)
    assert producer.flush(20) == 0
