"""An event loop whose time passes only while nothing can be done: seconds of waiting cost nothing, and tests repeat exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
_TICK_SECONDS = 1e-6


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()
        selector: Any = self._selector  # type: ignore[attr-defined]
        look = selector.select

        def select(timeout: float | None = None) -> Any:
            assert timeout is not None, "everything waits and nothing is due: it would hang"
            if timeout > 0:
                self._now += timeout + _TICK_SECONDS
            return look(0)

        selector.select = select

    def time(self) -> float:
        return self._now


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """As `asyncio.run`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
