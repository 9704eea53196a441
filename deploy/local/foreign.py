"""Processes that other parts start and end (the broker, a cluster's head), as the supervisor sees them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from deploy.broker.local import LocalKafka
from deploy.local.child import ProcessRecord
from deploy.local.supervision import Role
from rayline.errors import LaunchError
from workers.cluster import LocalHead


class ForeignProcess:
    """A `Running` around a process whose owner has its own way to end it. Owns nothing but the record."""

    def __init__(
        self, *, record: ProcessRecord, log_path: Path, end: Callable[[], Awaitable[None]], kill: Callable[[], Awaitable[None]]
    ) -> None:
        self._record = record
        self._log_path = log_path
        self._end = end
        self._kill = kill
        self._begun = time.monotonic()

    @property
    def record(self) -> ProcessRecord:
        return self._record

    @property
    def log_path(self) -> Path:
        return self._log_path

    @property
    def running_seconds(self) -> float:
        return time.monotonic() - self._begun

    async def wait(self) -> int | None:
        await process_ended(self._record.pid)
        return None

    def signal(self, number: signal.Signals) -> None:
        process = self._record.process()
        if process is not None:
            process.send_signal(number)

    async def stop(self, *, grace_seconds: float) -> None:
        # The owner has a time limit of its own, after which it kills.
        async with asyncio.timeout(grace_seconds):
            await self._end()

    async def kill(self) -> None:
        await self._kill()


async def launch_broker(broker: LocalKafka) -> ForeignProcess:
    """Start (again, on the same data and port) a local broker; raises LaunchError when it does not come up."""
    await broker.start()
    record = _record("kafka", Role.BROKER, broker.pid, None)
    return ForeignProcess(record=record, log_path=broker.log, end=broker.stop, kill=broker.kill)


async def launch_head(head: LocalHead, *, name: str, cluster: str, log_path: Path) -> ForeignProcess:
    """Start a cluster's head; returns before it answers. Raises ClusterError when it cannot be started."""
    await asyncio.to_thread(head.start)
    record = _record(name, Role.HEAD, head.pid, cluster)

    async def end() -> None:
        await asyncio.to_thread(head.stop)

    async def kill() -> None:
        await asyncio.to_thread(head.kill)

    return ForeignProcess(record=record, log_path=log_path, end=end, kill=kill)


async def process_ended(pid: int) -> None:
    """Until a process ends, told by the system (no polling)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _record(name: str, role: Role, pid: int | None, cluster: str | None) -> ProcessRecord:
    if pid is None:
        raise LaunchError(f"{name} ended as soon as it was up")
    try:
        return ProcessRecord(name=name, role=role, pid=pid, started=psutil.Process(pid).create_time(), cluster=cluster)
    except psutil.NoSuchProcess as error:
        raise LaunchError(f"{name} ended as soon as it was up") from error
