"""What an operator orders for one node, through `rayline.config`: `drain` (a notice) and `cordon` (no new work, until lifted)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final

from rayline.bus import CompactedLog, KafkaSettings
from rayline.errors import BusError
from rayline.topics import CONFIG
from workers.notices.base import Notice

DRAIN: Final = "drain"
CORDON: Final = "cordon"
# A fetch waits so long at the broker; what is written meanwhile arrives at once.
FETCH_WAIT_MS: Final = 5_000
RETRY_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


def order_key(node: str, order: str) -> bytes:
    """The key of an order in `rayline.config`; `node` is `<cluster>/<pod>`."""
    return f"node/{node}/{order}".encode()


class OperatorOrders:
    """Reads the orders for one node. Owns one reader.

    Only what is written after `start` counts: older orders were for an earlier pod of the same name.

    Life cycle: `start` before the node first reports, so that no order for it is missed -> `run` until cancelled.
    """

    def __init__(self, *, settings: KafkaSettings, node: str) -> None:
        """`node` is `<cluster>/<pod>`; `on_cordon` (to be set before `run`) is told whether new work shall keep away."""
        self._settings = settings
        self._node = node
        self.on_cordon: Callable[[bool], None] | None = None
        self._log: CompactedLog | None = None

    async def start(self) -> None:
        """Raises BusError when the platform's topics cannot be read."""
        log = CompactedLog(
            settings=self._settings,
            topic=CONFIG,
            from_end=True,
            client_id="rayline-agent-orders",
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        await log.start()
        self._log = log

    async def run(self, give: Callable[[Notice], None], drained: asyncio.Event) -> None:  # noqa: ARG002 - the reports answer
        try:
            while True:
                try:
                    await self._follow(give)
                except BusError as error:
                    _log.warning("orders for %s cannot be read, trying again: %s", self._node, error)
                    await self._stop()
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            await self._stop()

    async def _follow(self, give: Callable[[Notice], None]) -> None:
        if self._log is None:
            await self.start()
        assert self._log is not None
        async for record in self._log:
            if record.key == order_key(self._node, DRAIN) and _is_true(record.value):
                give(Notice("rayline drain"))
            elif record.key == order_key(self._node, CORDON) and self.on_cordon is not None:
                self.on_cordon(_is_true(record.value))

    async def _stop(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            await log.stop()


def _is_true(value: bytes | None) -> bool:
    try:
        return value is not None and json.loads(value) is True
    except ValueError:
        return False
