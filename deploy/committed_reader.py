"""Reads a topic to its present end as any ``read_committed`` consumer sees it, with confluent-kafka."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import tenacity

from rayline.errors import BrokerUnavailable, ConfigError

StartOffsets = Mapping[int, int]

_FETCH_RECORDS: Final = 5_000
_POLL_SECONDS: Final = 0.5
_SETTLE_SECONDS: Final = 0.1


class Record(NamedTuple):
    """One record; `timestamp_ms` is the broker's append time on topics with ``LogAppendTime``."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def end_offsets(
    bootstrap_servers: str, topic: str, *, timeout_seconds: float = 30.0, client_settings: Mapping[str, Any] | None = None
) -> dict[int, int]:
    """Partition → offset after the last record now; a later check starts there. Raises BrokerUnavailable."""
    return {p: end for p, (_, end) in _bounds(bootstrap_servers, topic, timeout_seconds, client_settings).items()}


def read_committed(
    bootstrap_servers: str,
    topic: str,
    *,
    start: StartOffsets | None = None,
    until: Mapping[int, int] | None = None,
    silence_seconds: float = 30.0,
    client_settings: Mapping[str, Any] | None = None,
) -> Iterator[Record]:
    """All committed records between `start` (default: the beginning) and `until` (default: the end at the time of the call).

    Order holds within a partition. A transaction that is open at the end is waited for: its producer may have been told that
    it is committed before readers are. Raises ConfigError without confluent-kafka, and BrokerUnavailable when nothing comes for
    `silence_seconds` while the end is not reached.
    """
    consumer = _consumer(bootstrap_servers, client_settings)
    import confluent_kafka

    try:
        ends: dict[int, int] = {}
        assignment = []
        for partition, (low, high) in _bounds(bootstrap_servers, topic, silence_seconds, client_settings).items():
            first = max(low, (start or {}).get(partition, low))
            end = high if until is None else min(high, until.get(partition, 0))
            if first < end:
                ends[partition] = end
                assignment.append(confluent_kafka.TopicPartition(topic, partition, first))
        consumer.assign(assignment)
        last_heard = time.monotonic()
        while ends:
            messages = consumer.consume(num_messages=_FETCH_RECORDS, timeout=_POLL_SECONDS)
            if messages:
                last_heard = time.monotonic()
            elif time.monotonic() - last_heard > silence_seconds:
                raise BrokerUnavailable(
                    f"{topic}: nothing came for {silence_seconds:g} s before the end of {sorted(ends)}; is the broker up?"
                )
            for message in messages:
                partition = message.partition()
                if partition not in ends:
                    continue
                end = ends[partition]
                error = message.error()
                if error is not None:
                    # The end of what is committed: behind it is an open transaction, or nothing.
                    if error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                        if message.offset() >= end:
                            del ends[partition]
                        continue
                    raise BrokerUnavailable(f"{topic}/{partition}: {error}; is the broker up?")
                offset = message.offset()
                if offset < end:
                    headers = tuple(message.headers() or ())
                    yield Record(partition, offset, message.timestamp()[1], message.key(), message.value(), headers)
                if offset >= end - 1:
                    del ends[partition]
    finally:
        consumer.close()


def _consumer(bootstrap_servers: str, client_settings: Mapping[str, Any] | None) -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise ConfigError(
            "the checker reads with confluent-kafka, which is not installed: run `pip install 'rayline[bench]'` or `make setup`"
        ) from error
    return confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"rayline-checker-{uuid.uuid4()}",  # required by the client; nothing is ever committed under it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": 4 * 1024 * 1024,
            "queued.max.messages.kbytes": 64 * 1024,
            **(client_settings or {}),
        }
    )


def _bounds(
    bootstrap_servers: str, topic: str, timeout_seconds: float, client_settings: Mapping[str, Any] | None
) -> dict[int, tuple[int, int]]:
    """Partition → (first offset, offset after the last record, committed or not)."""
    consumer = _consumer(bootstrap_servers, {**(client_settings or {}), "isolation.level": "read_uncommitted"})
    try:
        return _watermarks(consumer, topic, timeout_seconds)
    finally:
        consumer.close()


def _watermarks(consumer: Any, topic: str, timeout_seconds: float) -> dict[int, tuple[int, int]]:
    import confluent_kafka

    def leader_is_settling(error: BaseException) -> bool:
        return isinstance(error, confluent_kafka.KafkaException) and error.args[0].code() in (
            confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION,
            confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE,
        )

    # A topic that was made a moment ago, or whose broker came back a moment ago, answers so for some milliseconds.
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception(leader_is_settling),
        wait=tenacity.wait_fixed(_SETTLE_SECONDS),
        stop=tenacity.stop_after_delay(timeout_seconds),
        reraise=True,
    )
    try:
        found = consumer.list_topics(topic, timeout=timeout_seconds).topics[topic]
        if found.error is not None:
            raise BrokerUnavailable(f"topic {topic}: {found.error}; was the app deployed?")
        return {
            partition: patiently(
                consumer.get_watermark_offsets,
                confluent_kafka.TopicPartition(topic, partition),
                timeout=timeout_seconds,
                cached=False,
            )
            for partition in sorted(found.partitions)
        }
    except confluent_kafka.KafkaException as error:
        raise BrokerUnavailable(f"topic {topic}: {error}; is the broker up?") from error
