"""Fixtures that every test can use: one real broker for the whole run."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from deploy.broker import LocalKafka
from rayline.bus import KafkaSettings

# How long one example takes says something of the machine, not of the code.
hypothesis.settings.register_profile("rayline", deadline=None)
hypothesis.settings.load_profile("rayline")


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[LocalKafka]:
    """A real single-node Kafka for the whole run; stopped, and its folder removed, at the end."""
    with tempfile.TemporaryDirectory(prefix="rayline-test-kafka-", ignore_cleanup_errors=True) as folder:
        broker = LocalKafka(data_dir=Path(folder))
        asyncio.run(broker.start())
        try:
            yield broker
        finally:
            asyncio.run(broker.kill())


@pytest.fixture
def kafka(kafka_broker: LocalKafka) -> KafkaSettings:
    """How to reach the run's broker."""
    return kafka_broker.settings
