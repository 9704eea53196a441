"""What every contestant computes for a job. Plain Python: it knows nothing of Rayline, Ray or Kafka."""

import asyncio
from typing import Any

IO_SECONDS = 0.005


def echo(job: dict[str, Any]) -> dict[str, Any]:
    """A feature as large as its job."""
    return job


class Cpu:
    """A fixed loop; the bench calibrates ``loops`` to about 1 ms once and gives the same number to all contestants."""

    def __init__(self, loops: int) -> None:
        self._loops = loops

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        burn(self._loops)
        return job


async def io(job: dict[str, Any]) -> dict[str, Any]:
    """Waits as for another service."""
    await asyncio.sleep(IO_SECONDS)
    return job


def burn(loops: int) -> int:
    """The fixed loop: a linear congruential generator, ``loops`` steps."""
    state = 1
    for _ in range(loops):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return state
