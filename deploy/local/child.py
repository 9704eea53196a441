"""One child process: a session of its own, a log file, and an end that leaves nothing of its tree behind."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from rayline.errors import LaunchError
from workers.sessions import signal_session

RUN_ID_VARIABLE: Final = "RAYLINE_RUN_ID"
_PR_SET_PDEATHSIG: Final = 1
_KILL_WAIT_SECONDS: Final = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """What state.json says of one process: enough to find it again, and never to take another one for it."""

    name: str
    role: str
    pid: int
    started: float
    cluster: str | None = None

    def process(self) -> psutil.Process | None:
        """The process, or None when it is gone (or the pid is somebody else's by now)."""
        try:
            process = psutil.Process(self.pid)
            return process if process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Running(Protocol):
    """What the supervisor needs of a process, whoever started it."""

    @property
    def record(self) -> ProcessRecord: ...

    @property
    def log_path(self) -> Path: ...

    @property
    def running_seconds(self) -> float: ...

    async def wait(self) -> int | None:
        """Until it ends; its return code (negative: the signal), or None where it is not known."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself; nothing happens when it is gone."""

    async def stop(self, *, grace_seconds: float) -> None:
        """End it in order, after `grace_seconds` by force; safe at any time and more than once."""

    async def kill(self) -> None:
        """End it and all that belongs to it by force."""


class Child:
    """A `Running` of our own making.

    Owns the process and its session (everything below it, unless it leaves the session). Does not decide about restarts.
    Life: `Child.start` -> `wait` (any number of waiters) -> `stop`, which is safe at any time and more than once.
    """

    def __init__(self, *, record: ProcessRecord, process: asyncio.subprocess.Process, log_path: Path) -> None:
        self._record = record
        self._log_path = log_path
        self._process = process
        self._begun = time.monotonic()

    @classmethod
    async def start(
        cls, *, name: str, role: str, command: Sequence[str], env: Mapping[str, str], log_path: Path, cluster: str | None = None
    ) -> Child:
        """Start `command` in a new session, output appended to `log_path`; raises LaunchError when it cannot be run."""
        launcher = os.getpid()

        def follow_launcher() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != launcher:
                os._exit(1)

        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(env),
                    start_new_session=True,
                    preexec_fn=follow_launcher,
                )
            except OSError as error:
                raise LaunchError(f"{name} could not be started: {error}; the command was: {' '.join(command)}") from error
        try:
            started = psutil.Process(process.pid).create_time()
        except psutil.NoSuchProcess as error:
            raise LaunchError(f"{name} ended at once; see {log_path}") from error
        record = ProcessRecord(name=name, role=role, pid=process.pid, started=started, cluster=cluster)
        return cls(record=record, process=process, log_path=log_path)

    @property
    def record(self) -> ProcessRecord:
        return self._record

    @property
    def log_path(self) -> Path:
        return self._log_path

    @property
    def pid(self) -> int:
        return self._record.pid

    @property
    def running_seconds(self) -> float:
        return time.monotonic() - self._begun

    async def wait(self) -> int | None:
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself; nothing happens when it is gone."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, *, grace_seconds: float) -> None:
        """SIGTERM, up to `grace_seconds`, then SIGKILL for whatever of its session is left."""
        self.signal(signal.SIGTERM)
        ended = asyncio.ensure_future(self._process.wait())
        await asyncio.wait({ended}, timeout=grace_seconds)
        await self.kill()
        await ended

    async def kill(self) -> None:
        """SIGKILL to the process and everything in its session; returns when nothing of it lives."""
        await asyncio.to_thread(signal_session, self.pid, signal.SIGKILL)


def descendants(pid: int) -> list[psutil.Process]:
    """Everything below a process; empty when it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL each that still runs (psutil compares start times, so a reused pid is safe) and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(list(processes), timeout=_KILL_WAIT_SECONDS)


def log_tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 16 * 1024))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
