"""Ctrl-C and SIGTERM for commands that leave something behind: it is ended or taken back in order, and the exit code says that
they were interrupted."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

INTERRUPTED_EXIT_CODE: Final = 130
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """For programs without an event loop: the first SIGINT or SIGTERM raises KeyboardInterrupt, further ones do nothing: what is
    being ended comes to its end."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption:
    """Turns SIGINT and SIGTERM into one cancellation of the main task: the first one ends it in order, a second one hurries.

    Owns both signals' handlers while `run` runs. `on_second` is what a further signal does: the main task sets it as soon as
    there is something to kill.
    """

    def __init__(self) -> None:
        self.on_second: Callable[[], Awaitable[None]] | None = None
        self._interrupted = False
        self._task: asyncio.Task[int] | None = None
        self._second: asyncio.Future[None] | None = None

    def run(self, main: Callable[[Interruption], Coroutine[Any, Any, int]]) -> int:
        """Run `main` to its end; its exit code, or 130 when it was interrupted."""
        return asyncio.run(self._guard(main))

    async def _guard(self, main: Callable[[Interruption], Coroutine[Any, Any, int]]) -> int:
        loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(main(self), name="main")
        # Python gives signals to no other thread.
        numbers = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            await asyncio.wait({self._task})
            if self._interrupted and self._task.cancelled():
                return INTERRUPTED_EXIT_CODE
            return self._task.result()
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._interrupted:
            if self.on_second is not None:
                self._second = asyncio.ensure_future(self.on_second())
        elif self._task is not None:
            self._interrupted = True
            self._task.cancel()
