"""Kafka in a container, where a Docker engine answers and Java does not."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from random import Random
from typing import Any, Final

from deploy.broker.java import free_port
from rayline.bus import KafkaSettings, check_reachable
from rayline.errors import LaunchError

DEFAULT_IMAGE: Final = "apache/kafka:4.1.1"
_INNER_PORT: Final = 9092
_ENGINE_SECONDS: Final = 10.0


class ContainerKafka:
    """One Kafka node from an image that follows `apache/kafka` (settings from KAFKA_* variables); the data goes with it.

    Owns the container; needs the `testcontainers` package and a Docker engine.
    """

    def __init__(self, *, image: str = DEFAULT_IMAGE, start_timeout_seconds: float = 120.0) -> None:
        self._image = image
        self._start_timeout_seconds = start_timeout_seconds
        self._container: Any = None
        self._port: int | None = None

    @property
    def settings(self) -> KafkaSettings:
        if self._port is None:
            raise LaunchError("the container was not started yet: await start() first")
        return KafkaSettings(f"127.0.0.1:{self._port}")

    def describe(self) -> str:
        where = "not started" if self._port is None else f"at 127.0.0.1:{self._port}"
        return f"Kafka in a container of {self._image}, {where}"

    async def start(self) -> str:
        """Start the container and wait until the broker in it answers.

        Raises:
            LaunchError: no engine, no image, or no testcontainers.
            BrokerUnavailable: the container runs, but its broker does not answer.
        """
        try:
            from testcontainers.core.container import DockerContainer
        except ImportError:
            raise LaunchError("the container broker needs testcontainers: pip install testcontainers") from None
        self._port = free_port(Random())
        container = DockerContainer(self._image).with_bind_ports(_INNER_PORT, self._port)
        for key, value in _environment(self._port).items():
            container = container.with_env(key, value)
        try:
            await asyncio.to_thread(container.start)
        except Exception as error:
            raise LaunchError(f"the container of {self._image} did not start: {error}; see `docker info`") from error
        self._container = container
        try:
            await check_reachable(self.settings, timeout_seconds=self._start_timeout_seconds)
        except BaseException:
            await self.stop()
            raise
        return self.settings.bootstrap_servers

    async def stop(self) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.stop)
            self._container = None


def engine_answers() -> bool:
    """Whether a Docker engine can be used from here."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        done = subprocess.run(
            [docker, "info"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ENGINE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _environment(port: int) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{_INNER_PORT},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "8",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "8",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_MESSAGE_MAX_BYTES": "10485760",
    }
