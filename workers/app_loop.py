"""The event loop of an app with async functions: one thread for the life of the worker."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rayline.wire import Verdict
from workers.run import Run

try:  # in Rayline's own Python always, in a bundle's only where the app brings it
    import uvloop
except ImportError:
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

COLLECT_SECONDS = 0.05

Note = Callable[[Run, int, Any], None]
Start = tuple[int, Callable[[], Awaitable[Any]]]


class AppLoop:
    """Owns one event loop (uvloop's where it is installed, as in Ray's async actors) and its thread. Does not own the calls'
    meaning, nor the end of code that blocks the loop (the watchdog ends the process).

    Life cycle: runs from construction until `close`; `run` from any number of threads.
    """

    def __init__(self) -> None:
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rayline-app-loop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; calls that still run there are abandoned."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    def run(
        self,
        run: Run,
        calls: Sequence[Start],
        note: Note,
        *,
        limit_seconds: float,
        interruptible: bool = True,
        enter: Callable[[int], None] | None = None,
    ) -> Verdict:
        """Run coroutines side by side; `note` gets each one's result (or exception) in this thread, in the order they end.

        `enter` is called first in each one's own context, which is made from the caller's.
        Past the limit, or (when interruptible) at a notice, what is unfinished is cancelled. Returns only when the loop has let
        go of all of them.
        """
        flock = _Flock(self._loop, calls, enter)
        run.call_started = now = time.monotonic()
        limit = min(run.deadline, now + limit_seconds)
        verdict = Verdict.DONE
        flock.begin()
        while not flock.done.wait(COLLECT_SECONDS):
            flock.collect(run, note)
            late = time.monotonic() > limit
            if verdict is Verdict.DONE and (late or (run.draining and interruptible)):
                verdict = Verdict.TIMEOUT if late else Verdict.DRAINING
                flock.cancel()
        flock.collect(run, note)
        run.call_started = None
        return verdict


class _Flock:
    """The tasks of one batch on the loop; `done` is set when none is left."""

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: Sequence[Start], enter: Callable[[int], None] | None) -> None:
        self._enter = enter
        self.done = threading.Event()
        self._loop = loop
        self._calls = calls
        self._finished: deque[tuple[int, Any]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        # With this thread's context, as tasks have it then: a span that is current here is so in each of them.
        self._loop.call_soon_threadsafe(self._create_tasks, context=contextvars.copy_context())

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel_tasks)

    def collect(self, run: Run, note: Note) -> None:
        while self._finished:
            note(run, *self._finished.popleft())

    def _create_tasks(self) -> None:
        self._tasks.update(self._loop.create_task(self._call(index, start)) for index, start in self._calls)
        for task in tuple(self._tasks):
            task.add_done_callback(self._end)

    def _cancel_tasks(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self.done.set()

    async def _call(self, index: int, start: Callable[[], Awaitable[Any]]) -> None:
        if self._enter is not None:
            self._enter(index)
        try:
            self._finished.append((index, await start()))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                self._finished.append((index, error))
        except BaseException as error:  # noqa: BLE001 - SystemExit would stop the loop for all
            self._finished.append((index, error))
