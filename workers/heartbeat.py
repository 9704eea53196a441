"""The rhythm of a node's beats: each second, a little apart from other nodes, and never a queue of old ones."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from rayline.errors import BusError, ConfigError
from rayline.waits import news_by

INTERVAL_SECONDS: Final = 1.0
MIN_INTERVAL_SECONDS: Final = 0.1
MAX_INTERVAL_SECONDS: Final = 60.0
# Nodes that started together must not beat together; three beats still fit into the time after which one is missed.
JITTER_SHARE: Final = 0.1
# A beat that is not with the broker by then is given up: the next one knows more.
PATIENCE_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Heartbeat:
    """Owns the rhythm and the one beat that is under way. Does not own what a beat says.

    While a beat is under way (a broker that is slow, or away) the next ones are dropped: only the newest counts. A process that
    was stopped for a while beats once when it goes on, not once for each beat it missed.

    Life cycle: `run` until cancelled; `set_interval` at any time. `dropped` counts those left out; `reached_at` is when the
    broker last took one (monotonic seconds).
    """

    def __init__(
        self,
        *,
        beat: Callable[[], Awaitable[None]],
        interval_seconds: float = INTERVAL_SECONDS,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`beat` makes and sends one; what Kafka refuses (BusError) is noted and the rhythm goes on."""
        self._beat = beat
        self._interval_seconds = _checked(interval_seconds)
        self._uniform = uniform
        self._changed = asyncio.Event()
        self._under_way: asyncio.Task[None] | None = None
        self._failing = False
        self.dropped = 0
        self.reached_at = 0.0

    @property
    def interval_seconds(self) -> float:
        return self._interval_seconds

    def set_interval(self, seconds: float) -> None:
        """From now on a beat each `seconds`; raises ConfigError outside of 0.1 to 60."""
        self._interval_seconds = _checked(seconds)
        self._changed.set()

    async def run(self) -> None:
        """Beat until cancelled; raises what a beat raises besides BusError."""
        try:
            while True:
                self._begin_beat()
                await self._pause()
        finally:
            if self._under_way is not None:
                self._under_way.cancel()
                await asyncio.wait({self._under_way})

    def _begin_beat(self) -> None:
        if self._under_way is not None and not self._under_way.done():
            self.dropped += 1
            return
        if self._under_way is not None:
            self._under_way.result()
        self._under_way = asyncio.create_task(self._one_beat(), name="beat")

    async def _one_beat(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._beat()
        except (TimeoutError, BusError) as error:
            if not self._failing:
                _log.warning("beats do not reach the broker: %r", error)
            self._failing = True
        else:
            if self._failing:
                _log.warning("beats reach the broker again; %d were dropped since the start", self.dropped)
            self._failing = False
            self.reached_at = time.monotonic()

    async def _pause(self) -> None:
        """Until the next beat is due; a new interval counts from now."""
        while True:
            self._changed.clear()
            seconds = self._interval_seconds * self._uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)
            if not await news_by(self._changed, time.monotonic() + seconds):
                return


def _checked(seconds: float) -> float:
    if not MIN_INTERVAL_SECONDS <= seconds <= MAX_INTERVAL_SECONDS:
        raise ConfigError(f"a beat each {seconds:g} s: choose {MIN_INTERVAL_SECONDS:g} to {MAX_INTERVAL_SECONDS:g} s")
    return seconds
