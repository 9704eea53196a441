"""Waiting for news, but not for ever."""

from __future__ import annotations

import asyncio
import time


async def news_by(event: asyncio.Event, at: float | None) -> bool:
    """Wait until the event is set, or until a time (monotonic seconds; None: however long); whether it is set."""
    try:
        async with asyncio.timeout(None if at is None else max(0.0, at - time.monotonic())):
            await event.wait()
    except TimeoutError:
        return False
    return True
