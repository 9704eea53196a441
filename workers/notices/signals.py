"""SIGTERM: how Kubernetes, the launcher, and whoever stops a process by hand give notice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from workers.notices.base import Notice


class SignalSource:
    """Owns the handlers of its signals while it runs."""

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
        self._signals = signals

    async def run(self, give: Callable[[Notice], None], drained: asyncio.Event) -> None:  # noqa: ARG002 - a signal has no answer
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, give, Notice(number.name))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for number in self._signals:
                loop.remove_signal_handler(number)
