"""Waiting for a broker: the one policy by which every client of the bus starts."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import aiokafka.client as kafka_client
import aiokafka.errors as kafka_errors
import tenacity

from rayline.bus.settings import KafkaSettings
from rayline.errors import BrokerUnavailable

_log = logging.getLogger(__name__)

_UNREACHABLE = (
    kafka_errors.KafkaConnectionError,
    kafka_errors.NodeNotReadyError,
    kafka_errors.RequestTimedOutError,
    kafka_errors.CoordinatorNotAvailableError,
    OSError,
)


async def start_when_reachable(start: Callable[[], Awaitable[object]], settings: KafkaSettings, timeout_seconds: float) -> None:
    """Call `start` until a broker answers it.

    Raises:
        BrokerUnavailable: none did within `timeout_seconds`.
        Exception: whatever else `start` raises, at once.
    """
    try:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_UNREACHABLE),
            wait=tenacity.wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            stop=tenacity.stop_after_delay(timeout_seconds),
            before_sleep=tenacity.before_sleep_log(_log, logging.INFO),
            reraise=True,
        ):
            with attempt:
                await start()
    except _UNREACHABLE as error:
        raise BrokerUnavailable(
            f"no Kafka broker answers at {settings.bootstrap_servers} ({settings.security_protocol}) "
            f"within {timeout_seconds:g} s: {error}; start one, or correct the address and the security settings"
        ) from error


def for_ever(
    errors: type[BaseException] | tuple[type[BaseException], ...],
    *,
    pause_seconds: float,
    tell: Callable[[BaseException], Awaitable[None] | None],
) -> tenacity.AsyncRetrying:
    """Calls what follows Kafka again whenever it ends with one of these errors; `tell` hears of each before the pause.

    `await for_ever(...)(function)` returns what the function does; all other errors come out at once.
    """

    async def before_sleep(state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        assert error is not None
        told = tell(error)
        if told is not None:
            await told

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(errors), wait=tenacity.wait_fixed(pause_seconds), before_sleep=before_sleep
    )


def close_whole(client: Any) -> None:
    """Make an aiokafka client's `close` wait for a connection that is still being made, and close that one, too; and its
    `bootstrap`, broken off, close what it asks for the cluster's shape.

    aiokafka 0.14 closes those it has: both others would stay open for as long as the process lives.
    """
    close_known, bootstrap_whole = client.close, client.bootstrap

    async def close() -> None:
        await close_known()
        async with client._get_conn_lock:
            await close_known()

    async def bootstrap() -> None:
        made: list[Any] = []
        token = _bootstrapping.set(made)
        try:
            await bootstrap_whole()
        except BaseException:
            for connection in made:
                connection.close()
            raise
        finally:
            _bootstrapping.reset(token)

    client.close, client.bootstrap = close, bootstrap


_bootstrapping: ContextVar[list[Any] | None] = ContextVar("connections that a bootstrap made", default=None)
_create_connection = kafka_client.create_conn


async def _create_known(*args: Any, **options: Any) -> Any:
    connection = await _create_connection(*args, **options)
    made = _bootstrapping.get()
    # All others tell their client when they close: it knows them.
    if made is not None and "on_close" not in options:
        made.append(connection)
    return connection


# There is no other way to learn of them.
kafka_client.create_conn = _create_known
