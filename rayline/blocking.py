"""The blocking twin of `Client`: made from it, method by method, over an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from rayline.bus import KafkaSettings
from rayline.client import Client

P = ParamSpec("P")
R = TypeVar("R")


class _LoopThread:
    """An event loop that runs in a daemon thread until `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rayline-client", daemon=True)
        self._thread.start()

    def run(self, awaitable: Coroutine[Any, Any, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(awaitable, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _waiting(method: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[BlockingClient, P], R]:
    def call(self: BlockingClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._thread.run(method(self._client, *args, **kwargs))

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncIterator[R]],
) -> Callable[Concatenate[BlockingClient, P], Iterator[R]]:
    def call(self: BlockingClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        source = method(self._client, *args, **kwargs)
        end = object()

        async def following() -> R | object:
            return await anext(source, end)

        async def finish() -> None:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

        try:
            while (item := self._thread.run(following())) is not end:
                yield item  # type: ignore[misc]
        finally:
            self._thread.run(finish())

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class BlockingClient:
    """`Client` for code without an event loop; the same methods, arguments and errors.

    Owns a thread with an event loop, and the `Client` in it. Use from any thread. Life: `with BlockingClient(...)`, or `close`.
    """

    def __init__(self, kafka: KafkaSettings | str, *, linger_ms: int = 2) -> None:
        self._client = Client(kafka, linger_ms=linger_ms)
        self._thread = _LoopThread()
        try:
            self._thread.run(self._client.start())
        except BaseException:
            self._thread.close()
            raise

    submit = _waiting(Client.submit)
    submit_many = _waiting(Client.submit_many)
    result = _waiting(Client.result)
    results = _iterating(Client.results)

    def close(self) -> None:
        """As `Client.close`; ends the thread, too."""
        try:
            self._thread.run(self._client.close())
        finally:
            self._thread.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
