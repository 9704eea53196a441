"""Keeps child processes alive: the I/O around `Supervision`."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from deploy.local.child import ProcessRecord, Running, log_tail
from deploy.local.supervision import Action, Role, Step, Supervision
from rayline.errors import LaunchError, RaylineError

_log = logging.getLogger(__name__)
_NOTICE_CODES: Final = (0, -int(signal.SIGTERM))


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process that is to be kept alive: `launch` starts it (each time); `grace_seconds` to end after SIGTERM."""

    name: str
    role: Role
    launch: Callable[[], Awaitable[Running]]
    cluster: str | None = None
    grace_seconds: float = 10.0


class Supervisor:
    """Starts processes, watches their ends, and does what `Supervision` decides.

    Owns the children and one watching task for each. `RESTART` it does itself; the other steps are `act`'s, which knows
    clusters. Does not know what a process needs before it can work.
    Life: `start` and `stop` for single processes in any order -> `begin_closing`, `stop_role` in the caller's order, `close`.
    """

    def __init__(
        self,
        *,
        act: Callable[[Action], Awaitable[None]],
        on_change: Callable[[], None],
        on_event: Callable[[str], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        """`on_crash` is told when the supervision itself fails, which nothing here can mend."""
        self._act = act
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
        """Start a process and keep it alive from now on; raises LaunchError when it cannot be run."""
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
        """Notice (SIGTERM), `grace_seconds`, end (SIGKILL): the policy replaces it at once."""
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
            await self._after_end(spec, child, code)
        finally:
            if self._tasks.get(spec.name) is asyncio.current_task():
                del self._tasks[spec.name]

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_crash(error)

    async def _after_end(self, spec: ChildSpec, child: Running, code: int | None) -> None:
        asked_for = self._closing or spec.name in self._asked_for
        evicted = spec.name in self._evicted or (spec.role is Role.POD and code in _NOTICE_CODES)
        self._evicted.discard(spec.name)
        ran_seconds = child.running_seconds
        while True:
            action = self._policy.ended(
                name=spec.name,
                role=spec.role,
                cluster=spec.cluster,
                ran_seconds=ran_seconds,
                asked_for=asked_for,
                evicted=evicted,
            )
            if action is None:
                return
            self._on_event(
                f"{spec.name} ended ({_how(code)}) after {ran_seconds:.1f} s: {action.step}; its log: {child.log_path}"
            )
            await asyncio.sleep(action.delay_seconds)
            if self._closing or spec.name in self._asked_for:
                return
            try:
                await (self.start(spec) if action.step is Step.RESTART else self._act(action))
            except RaylineError as error:
                _log.error("%s of %s failed: %s\n%s", action.step, spec.name, error, log_tail(child.log_path))
                self._on_event(f"{action.step} of {spec.name} failed: {error}")
                ran_seconds, evicted = 0.0, False
            else:
                return


def _how(code: int | None) -> str:
    if code is None:
        return "status unknown"
    if code < 0:
        return signal.Signals(-code).name
    return f"status {code}"
