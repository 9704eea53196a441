"""Clients wait for a broker, and go on when it is back; one that is broken off while it starts leaves nothing open."""

from __future__ import annotations

import asyncio
import struct

import pytest
from aiokafka.errors import KafkaConnectionError

from rayline.bus import KafkaSettings
from rayline.bus.connection import for_ever, start_when_reachable
from rayline.bus.log import CompactedLog
from rayline.errors import BrokerUnavailable, BusError

_API_VERSIONS = 18
_SUPPORTED = [(0, 0, 7), (1, 0, 11), (2, 0, 3), (3, 0, 5), (_API_VERSIONS, 0, 0)]


class SilentBroker:
    """Tells which requests it knows, and answers none of them."""

    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                api, _, correlation = struct.unpack(">hhi", (await reader.readexactly(length))[:8])
                if api != _API_VERSIONS:
                    self.asked.set()
                    continue
                answer = struct.pack(">ihi", correlation, 0, len(_SUPPORTED))
                answer += b"".join(struct.pack(">hhh", *one) for one in _SUPPORTED)
                writer.write(struct.pack(">i", len(answer)) + answer)
        except asyncio.IncompleteReadError:
            self.left.set()
        finally:
            writer.close()


async def test_a_start_that_is_broken_off_leaves_no_connection() -> None:
    broker = SilentBroker()
    async with await asyncio.start_server(broker.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        log = CompactedLog(settings=KafkaSettings(f"127.0.0.1:{port}"), topic="t")
        starting = asyncio.create_task(log.start())
        async with asyncio.timeout(10):
            await broker.asked.wait()
            starting.cancel()
            await asyncio.wait({starting})
            assert starting.cancelled()
            # The log itself still holds its client here: what closes the connection is the end of the start.
            await broker.left.wait()
        await log.stop()


class Source:
    """Ends with each of these errors, then returns; remembers when it was called."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.told: list[str] = []

    async def follow(self, word: str) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return word

    async def tell(self, error: BaseException) -> None:
        await asyncio.sleep(0)
        self.told.append(str(error))


async def test_what_follows_kafka_goes_on_after_its_errors_and_each_is_told() -> None:
    source = Source(BusError("away"), TimeoutError("silent"), BusError("away still"))
    again = for_ever((BusError, TimeoutError), pause_seconds=0.0, tell=source.tell)
    assert await again(source.follow, "read") == "read"
    assert source.told == ["away", "silent", "away still"]


async def test_other_errors_of_what_follows_kafka_come_out_at_once() -> None:
    source = Source(BusError("away"), ValueError("a fault"), BusError("never reached"))
    with pytest.raises(ValueError, match="a fault"):
        await for_ever(BusError, pause_seconds=0.0, tell=source.tell)(source.follow, "read")
    assert source.told == ["away"]


async def test_what_follows_kafka_can_be_cancelled_in_its_pause() -> None:
    source, paused = Source(BusError("away")), asyncio.Event()
    following = asyncio.create_task(for_ever(BusError, pause_seconds=600.0, tell=lambda _: paused.set())(source.follow, "read"))
    async with asyncio.timeout(10):
        await paused.wait()
        following.cancel()
        await asyncio.wait({following})
    assert following.cancelled()


async def test_a_client_starts_once_a_broker_answers_and_gives_up_when_none_does() -> None:
    refusals = 2

    async def start() -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise KafkaConnectionError("nobody there")

    settings = KafkaSettings("127.0.0.1:1")
    await start_when_reachable(start, settings, 30)
    assert refusals == 0
    refusals = 1_000_000
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 \(PLAINTEXT\) within 0\.2 s"):
        await start_when_reachable(start, settings, 0.2)
