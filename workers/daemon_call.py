"""A blocking call in a daemon thread, awaited: a process that ends must not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(call: Callable[[], T], *, name: str, unwanted: Callable[[T], None] | None = None) -> T:
    """What the call returns or raises. `unwanted` gets a result for which nobody waits any more."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def discard(result: T) -> None:
        if unwanted is not None:
            unwanted(result)

    def succeed(result: T) -> None:
        if done.cancelled():
            discard(result)
        else:
            done.set_result(result)

    def fail(error: BaseException) -> None:
        if not done.cancelled():
            done.set_exception(error)

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            post(loop, fail, error)
        else:
            if not post(loop, succeed, result):
                discard(result)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await done


def post(loop: asyncio.AbstractEventLoop, call: Callable[[T], object], value: T) -> bool:
    """Call it in the loop's thread; False where the loop has ended meanwhile, and with it what the call was for."""
    try:
        loop.call_soon_threadsafe(call, value)
    except RuntimeError:
        return False
    return True
