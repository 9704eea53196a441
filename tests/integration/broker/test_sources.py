"""The same tests over every source of a broker, and what is special about the local one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import tenacity

from deploy.broker import Broker, ContainerKafka, ExternalKafka, LocalKafka, choose_broker
from deploy.broker.container import engine_answers
from rayline.bus import KafkaSettings, Publisher, ensure_topics
from rayline.errors import BrokerUnavailable, LaunchError
from rayline.topics import TopicSpec
from tests.support.foreign import read_committed
from tests.support.names import fresh

pytestmark = pytest.mark.integration

CONTAINER_IMAGE = "RAYLINE_TEST_KAFKA_IMAGE"


@pytest.fixture(params=["local", "external", pytest.param("container", marks=pytest.mark.docker)])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    if request.param == "local":
        return LocalKafka(data_dir=tmp_path / "kafka")
    if request.param == "external":
        settings: KafkaSettings = request.getfixturevalue("kafka")
        return ExternalKafka(settings)
    if not engine_answers():
        pytest.skip("no Docker engine answers here")
    return ContainerKafka(image=os.environ.get(CONTAINER_IMAGE, "apache/kafka:4.1.1"))


@pytest.fixture
async def broker(source: Broker) -> AsyncIterator[Broker]:
    yield source
    await source.stop()


async def test_a_started_broker_takes_and_gives_records(broker: Broker) -> None:
    servers = await broker.start()
    assert servers == broker.settings.bootstrap_servers
    assert servers in broker.describe()
    topic = fresh("source")
    assert await ensure_topics(broker.settings, [TopicSpec(topic, 1, {"message.timestamp.type": "LogAppendTime"})]) == []
    async with Publisher(settings=broker.settings) as publisher:
        await publisher.publish(topic, key=None, value=b"here")
    assert [seen.value for seen in read_committed(broker.settings, topic)] == [b"here"]


async def test_a_crash_keeps_records_and_port(tmp_path: Path) -> None:
    broker = LocalKafka(data_dir=tmp_path / "kafka")
    before = await broker.start()
    try:
        topic = fresh("crash")
        await ensure_topics(broker.settings, [TopicSpec(topic, 1)])
        async with Publisher(settings=broker.settings) as publisher:
            await publisher.publish(topic, key=None, value=b"kept")
        await broker.kill()
        assert broker.pid is None
        assert await broker.start() == before
        assert [seen.value for seen in read_committed(broker.settings, topic)] == [b"kept"]
        with pytest.raises(LaunchError, match="runs already"):
            await broker.start()
    finally:
        await broker.stop()


_PARENT = """
import asyncio, pathlib, sys
from deploy.broker import LocalKafka
broker = LocalKafka(data_dir=pathlib.Path(sys.argv[1]))
asyncio.run(broker.start())
print(broker.pid, flush=True)
sys.stdin.read()
"""


def test_the_broker_never_outlives_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path / "kafka")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.communicate()
    gone = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda there: there),
        wait=tenacity.wait_fixed(0.05),
        stop=tenacity.stop_after_delay(10),
    )
    assert gone(is_alive, child) is False


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_broker_that_ends_at_once_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broker = LocalKafka(data_dir=tmp_path / "kafka", overrides={"node.id": "nonsense"})
    with pytest.raises(LaunchError, match=r"(?s)broker\.log.*Invalid value nonsense"):
        await broker.start()


async def test_an_existing_kafka_that_does_not_answer_is_named() -> None:
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 "):
        await ExternalKafka(KafkaSettings("127.0.0.1:1"), timeout_seconds=0.3).start()


def test_a_named_cluster_is_chosen_before_everything_else(tmp_path: Path) -> None:
    named = choose_broker(data_dir=tmp_path, external=KafkaSettings("k:1"), env={})
    assert isinstance(named, ExternalKafka)
    assert isinstance(choose_broker(data_dir=tmp_path), LocalKafka)
