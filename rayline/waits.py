"""Waiting for news, but not for ever; waiting for several things, and for none to be left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any


async def news_by(event: asyncio.Event, at: float | None) -> bool:
    """Wait until the event is set, or until a time (monotonic seconds; None: however long); whether it is set."""
    try:
        async with asyncio.timeout(None if at is None else max(0.0, at - time.monotonic())):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def together(*steps: Coroutine[Any, Any, object]) -> None:
    """Take all steps at once. The first error is raised, once the other steps were cancelled and have ended."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
