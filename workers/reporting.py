"""What an agent tells of its node: beats, and what must be known at once."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Protocol

import tenacity

from rayline.bus import Delivery
from rayline.clock import BrokerClock
from rayline.errors import BusError
from rayline.reports import DEFAULT_INTERVAL_MS, NodeLoad, NodeReport, NodeState, PeerPresence, encode_reports
from rayline.topics import BEATS_PARTITION, CHANGES_PARTITION, REPORTS

ATTEMPT_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.2

_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """What an agent needs of `rayline.bus.Publisher`."""

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, partition: int | None = None
    ) -> asyncio.Future[Delivery]: ...


class Reporter:
    """Owns the sequence of one incarnation's reports, what its last state was, and the broker's clock as its own records show it.

    Does not own the publisher, nor when to report. `cordoned` (an operator keeps new work away) and `interval_ms` (how often
    beats come: silence is judged by it) stand in every report from when they are set.
    """

    def __init__(
        self, *, cluster: str, node: str, incarnation: int, cpus: float | None, zone: str | None, publisher: Publisher
    ) -> None:
        """`incarnation` is the node's start (epoch ms)."""
        self._cluster = cluster
        self._node = node
        self._incarnation = incarnation
        self._cpus = cpus
        self._zone = zone
        self._publisher = publisher
        self._clock: BrokerClock | None = None
        self._seq = 0
        self._state = NodeState.STARTING
        self._reason: str | None = None
        self.cordoned = False
        self.interval_ms = DEFAULT_INTERVAL_MS

    @property
    def key(self) -> str:
        return f"{self._cluster}/{self._node}"

    @property
    def state(self) -> NodeState:
        return self._state

    def clock_skew_ms(self) -> float | None:
        """This machine's wall clock minus the broker's; None until a record of ours was acknowledged."""
        return None if self._clock is None else time.time() * 1000 - self._clock.at(time.monotonic())

    async def beat(self, load: NodeLoad | None, *, peer: PeerPresence | None = None) -> None:
        """Send the state, this load and this part among peers once; raises BusError when Kafka refuses."""
        await self._send(BEATS_PARTITION, self._report(load, peer))

    async def tell(self, state: NodeState, reason: str | None, *, until: float) -> bool:
        """Say at once that the state changed, again and again until the broker has it or `until` (monotonic seconds).

        False when it did not get through: beats say it later, and so do the gateway and the streams that break.
        """
        self._state, self._reason = state, reason
        return await self._insist(f"{state.name} ({reason})", until)

    async def tell_again(self, *, until: float) -> bool:
        """Say at once what else changed: `cordoned`, `interval_ms`."""
        return await self._insist(f"{self._state.name} still (cordoned: {self.cordoned}, beats: {self.interval_ms} ms)", until)

    async def _insist(self, what: str, until: float) -> bool:
        async def attempt() -> bool:
            async with asyncio.timeout(max(RETRY_SECONDS, min(ATTEMPT_SECONDS, until - time.monotonic()))):
                await self._send(CHANGES_PARTITION, self._report(None))
            return True

        def failed(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            _log.error("node %s: the broker was not told that it is %s: %r", self.key, what, error)

        insisting = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((TimeoutError, BusError)),
            wait=tenacity.wait_fixed(RETRY_SECONDS),
            stop=lambda _: time.monotonic() + RETRY_SECONDS > until,
            after=failed,
            retry_error_callback=lambda _: False,
        )
        told: bool = await insisting(attempt)
        return told

    def _report(self, load: NodeLoad | None, peer: PeerPresence | None = None) -> NodeReport:
        # Comparable with the numbers of other reporters of the node, which count likewise.
        self._seq = max(self._seq + 1, time.time_ns() // 1_000_000)
        return NodeReport(
            cluster=self._cluster,
            node=self._node,
            incarnation=self._incarnation,
            seq=self._seq,
            state=self._state,
            cpus=self._cpus,
            zone=self._zone,
            reason=self._reason,
            beat=True,
            load=load,
            cordoned=self.cordoned,
            interval_ms=self.interval_ms,
            peer=peer,
        )

    async def _send(self, partition: int, report: NodeReport) -> None:
        sent_at, wall_ms = time.monotonic(), time.time() * 1000
        delivery = await self._publisher.send(
            REPORTS, key=report.key.encode(), value=encode_reports([report]), partition=partition
        )
        delivered = await delivery
        if self._clock is None:
            self._clock = BrokerClock(wall_ms=wall_ms, monotonic=sent_at)
        self._clock.observe_append(append_ms=delivered.timestamp_ms, sent_at=sent_at, acknowledged_at=time.monotonic())
