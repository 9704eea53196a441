"""A single-node Kafka in KRaft mode as a child process."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Final

import tenacity

from deploy.broker.java import find_jars, find_java, free_port, is_free, signal_group, spawn
from rayline.bus import KafkaSettings, check_reachable
from rayline.errors import BrokerUnavailable, LaunchError

_MAIN: Final = "kafka.Kafka"
_FORMATTER: Final = "kafka.tools.StorageTool"
_POLL_SECONDS: Final = 0.1
_PROBE_SECONDS: Final = 2.0
_TAIL_LINES: Final = 12
_STACK_FRAME: Final = "\tat "

# It shares its cores with what it serves: no optimising compiler and no concurrent collector beside them. Cold, that halves what
# a request costs; after minutes at the limit, C2 would win some of it back.
_JVM_OPTIONS: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseParallelGC", "-XX:MetaspaceSize=96m")

_LOG4J: Final = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
"""

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log_dir}
auto.create.topics.enable=false
num.partitions=1
message.max.bytes=10485760
replica.fetch.max.bytes=10485760
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
log.cleaner.dedupe.buffer.size=16777216
"""


class LocalKafka:
    """One Kafka node on free ports of the loopback address, with its data in a folder of its own.

    Owns the child process and `data_dir` (`server.properties`, `broker.log`, `data/`); the folder outlives it, and a
    later start on the same folder finds the same records. Does not own topics.

    Life: `start` -> any number of (`kill` -> `start`, same data and same port) -> `stop`. The process is killed by the
    system when the thread that started it ends.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        jars: Path | None = None,
        max_heap_mb: int = 512,
        start_timeout_seconds: float = 60.0,
        stop_timeout_seconds: float = 15.0,
        overrides: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`overrides`: lines for server.properties that take the place of ours; `env`: default `os.environ`."""
        self._data_dir = data_dir
        self._jars = jars
        self._max_heap_mb = max_heap_mb
        self._start_timeout_seconds = start_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds
        self._overrides = dict(overrides or {})
        self._env = os.environ if env is None else env
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    @property
    def log(self) -> Path:
        """The broker's own log, appended to by each start."""
        return self._data_dir / "broker.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def settings(self) -> KafkaSettings:
        if self._port is None:
            raise LaunchError("the local broker was not started yet: await start() first")
        return KafkaSettings(f"127.0.0.1:{self._port}")

    def describe(self) -> str:
        where = "not started" if self._port is None else f"at 127.0.0.1:{self._port}"
        state = f"process {self.pid}" if self.pid is not None else "not running"
        return f"local Kafka {where}, {state}, data in {self._data_dir}"

    async def start(self) -> str:
        """Format the storage if it is new, start the process, wait until it answers.

        Raises:
            LaunchError: no Java, no jars, it runs already, or it ended or stayed silent (with the end of its log).
        """
        if self.pid is not None:
            raise LaunchError(f"this local broker runs already: {self.describe()}")
        java = find_java(self._env)
        jars = self._jars or find_jars(self._env)
        self._data_dir.mkdir(parents=True, exist_ok=True)
        properties = self._write_properties()
        base = [java, *_JVM_OPTIONS, f"-Xmx{self._max_heap_mb}m", "-Djava.awt.headless=true"]
        base += [f"-Dlog4j2.configurationFile={self._data_dir / 'log4j2.properties'}", "-cp", f"{jars}/*"]
        if not (self._data_dir / "data" / "meta.properties").exists():
            await self._format([*base, _FORMATTER, "format", "-t", _cluster_id(), "-c", str(properties)])
        self._process = spawn([*base, _MAIN, str(properties)], log=self.log)
        try:
            await self._wait_until_it_answers(self._process)
        except BaseException:
            await self.kill()
            raise
        return self.settings.bootstrap_servers

    async def stop(self) -> None:
        """Shut down in order; killed when that takes too long."""
        if self._process is None:
            return
        signal_group(self._process, signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, self._stop_timeout_seconds)
        except subprocess.TimeoutExpired:
            await self.kill()
        self._process = None

    async def kill(self) -> None:
        """End it as a crash would; `start` brings it back on the same data and port."""
        if self._process is None:
            return
        signal_group(self._process, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        self._process = None

    def _write_properties(self) -> Path:
        random = Random()
        if self._port is None:
            self._port = self._remembered_port() or free_port(random)
        values = {
            key: value
            for key, _, value in (
                line.partition("=")
                for line in _PROPERTIES.format(
                    port=self._port, controller_port=free_port(random), log_dir=self._data_dir / "data"
                ).splitlines()
            )
        }
        path = self._data_dir / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in {**values, **self._overrides}.items()))
        (self._data_dir / "log4j2.properties").write_text(_LOG4J)
        (self._data_dir / "port").write_text(f"{self._port}\n")
        return path

    def _remembered_port(self) -> int | None:
        """The port of an earlier life on the same folder, if it is free."""
        path = self._data_dir / "port"
        if not path.exists():
            return None
        port = int(path.read_text())
        return port if is_free(port) else None

    async def _format(self, command: list[str]) -> None:
        process = spawn(command, log=self.log)
        if await asyncio.to_thread(process.wait) != 0:
            raise LaunchError(f"the broker's storage could not be formatted; {self._end_of_log()}")

    async def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        async def answers() -> bool:
            if process.poll() is not None:
                raise LaunchError(f"the local broker ended at once (status {process.returncode}); {self._end_of_log()}")
            if self._port is None or is_free(self._port):
                return False
            await check_reachable(self.settings, timeout_seconds=_PROBE_SECONDS)
            return True

        try:
            await tenacity.AsyncRetrying(
                retry=tenacity.retry_if_result(lambda ready: not ready) | tenacity.retry_if_exception_type(BrokerUnavailable),
                wait=tenacity.wait_fixed(_POLL_SECONDS),
                stop=tenacity.stop_after_delay(self._start_timeout_seconds),
            )(answers)
        except tenacity.RetryError as error:
            raise LaunchError(
                f"the local broker did not answer within {self._start_timeout_seconds:g} s; {self._end_of_log()}"
            ) from error

    def _end_of_log(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line for line in text.splitlines() if not line.startswith(_STACK_FRAME)]
        return f"the end of {self.log}:\n" + "\n".join(lines[-_TAIL_LINES:])


def _cluster_id() -> str:
    """A Kafka uuid: 16 random bytes in URL-safe base64 without padding, not beginning like an option."""
    while (text := base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")).startswith("-"):
        pass
    return text
