"""A client that is broken off while it starts leaves nothing open."""

from __future__ import annotations

import asyncio
import struct

from rayline.bus import KafkaSettings
from rayline.bus.log import CompactedLog

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
