"""Gives a job back after 20 ms."""

import asyncio
from typing import Any

WORK_SECONDS = 0.02


async def echo(job: dict[str, Any]) -> dict[str, Any]:
    """The job itself."""
    await asyncio.sleep(WORK_SECONDS)
    return job
