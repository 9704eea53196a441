"""Keeps child processes alive: the I/O around `Supervision`."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.child import ProcessRecord, Running, log_tail
from deploy.local.supervision import Role, Supervision
from rayline.errors import LaunchError, RaylineError

_log = logging.getLogger(__name__)
_NOTICE_CODES: Final = (0, -int(signal.SIGTERM))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended. `noticed`: in order, as after a SIGTERM; `failed`: by itself, by a status; `asked_for`: by `stop`."""

    name: str
    ran_seconds: float
    noticed: bool
    failed: bool
    asked_for: bool
    text: str
    log_path: Path


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process that is to run: `launch` starts it (each time); `grace_seconds` to end after SIGTERM.

    One with `on_end` is not started again when it ends, however that came: `on_end` is told, once.
    """

    name: str
    role: Role
    launch: Callable[[], Awaitable[Running]]
    cluster: str | None = None
    grace_seconds: float = 10.0
    on_end: Callable[[Ending], None] | None = None


class Supervisor:
    """Starts processes, watches their ends, and starts again what is to be kept alive.

    Owns the children and one watching task for each. Does not know what a process needs before it can work, nor clusters.
    Life: `start` and `stop` for single processes in any order -> `begin_closing`, `stop_role` in the caller's order, `close`.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[], None],
        on_event: Callable[[str], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        """`on_crash` is told when the supervision itself fails, which nothing here can mend."""
        self._on_change = on_change
        self._on_event = on_event
        self._on_crash = on_crash
        self._policy = Supervision()
        self._children: dict[str, tuple[ChildSpec, Running]] = {}
        self._asked_for: set[str] = set()
        self._evicted: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    def child(self, name: str) -> Running:
        """A running process; raises LaunchError when there is none of that name."""
        if name not in self._children:
            raise LaunchError(f"no process {name!r} runs here; running: {', '.join(self._children) or 'none'}")
        return self._children[name][1]

    def specs(self) -> list[ChildSpec]:
        return [spec for spec, _ in self._children.values()]

    def records(self) -> list[ProcessRecord]:
        return [child.record for _, child in self._children.values()]

    async def start(self, spec: ChildSpec) -> Running:
        """Start a process and watch it from now on; raises LaunchError when it cannot be run."""
        child = await spec.launch()
        self._children[spec.name] = (spec, child)
        task = asyncio.create_task(self._watch(spec, child), name=f"watch {spec.name}")
        task.add_done_callback(self._watch_ended)
        self._tasks[spec.name] = task
        self._on_change()
        return child

    async def stop(self, name: str) -> None:
        """End a process and do not bring it back; nothing happens when there is none of that name."""
        self._asked_for.add(name)
        entry = self._children.get(name)
        if entry is not None:
            spec, child = entry
            await child.stop(grace_seconds=spec.grace_seconds)
        task = self._tasks.get(name)
        if task is not None and task is not asyncio.current_task():
            if entry is None:
                task.cancel()
            await asyncio.wait({task})
        self._asked_for.discard(name)

    async def evict(self, name: str, *, grace_seconds: float) -> None:
        """Notice (SIGTERM), `grace_seconds`, end (SIGKILL): an end in order, though nobody here asked for it."""
        child = self.child(name)
        self._evicted.add(name)
        await child.stop(grace_seconds=grace_seconds)

    async def stop_role(self, role: Role) -> None:
        """End every process of a role together."""
        await asyncio.gather(*(self.stop(spec.name) for spec in self.specs() if spec.role is role))

    def begin_closing(self) -> None:
        """From now on no end is answered with a restart."""
        self._closing = True

    async def close(self) -> None:
        """End what still runs, and the watching."""
        self._closing = True
        await asyncio.gather(*(self.stop(spec.name) for spec in self.specs()))
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _watch(self, spec: ChildSpec, child: Running) -> None:
        try:
            code = await child.wait()
            if spec.name not in self._asked_for:
                # What the process leaves of its session must not live on (`stop` sees to that itself).
                await child.kill()
            del self._children[spec.name]
            self._on_change()
            ending = self._ending(spec, child, code)
            if spec.on_end is not None:
                spec.on_end(ending)
            elif not ending.asked_for:
                await self._start_again(spec, child, ending)
        finally:
            if self._tasks.get(spec.name) is asyncio.current_task():
                del self._tasks[spec.name]

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_crash(error)

    def _ending(self, spec: ChildSpec, child: Running, code: int | None) -> Ending:
        evicted = spec.name in self._evicted
        self._evicted.discard(spec.name)
        return Ending(
            name=spec.name,
            ran_seconds=child.running_seconds,
            noticed=evicted or code in _NOTICE_CODES,
            failed=code is not None and code > 0,
            asked_for=self._closing or spec.name in self._asked_for,
            log_path=child.log_path,
            text=f"its process ended ({_how(code)}) after {child.running_seconds:.1f} s",
        )

    async def _start_again(self, spec: ChildSpec, child: Running, ending: Ending) -> None:
        self._on_event(f"{spec.name}: {ending.text}, it is started again; its log: {ending.log_path}")
        ran_seconds = ending.ran_seconds
        while True:
            await asyncio.sleep(self._policy.restart_delay(spec.name, ran_seconds=ran_seconds))
            if self._closing or spec.name in self._asked_for:
                return
            try:
                await self.start(spec)
            except RaylineError as error:
                _log.error("%s was not started again: %s\n%s", spec.name, error, log_tail(child.log_path))
                self._on_event(f"{spec.name} was not started again: {error}")
                ran_seconds = 0.0
            else:
                return


def _how(code: int | None) -> str:
    if code is None:
        return "status unknown"
    if code < 0:
        return signal.Signals(-code).name
    return f"status {code}"
