"""A node among its peers: tells in its beats what it has, and hears in the others' who is alive with what."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final, Protocol

from rayline.bus import CompactedLog, KafkaSettings
from rayline.bus.connection import for_ever
from rayline.errors import FormatError, RaylineError
from rayline.reports import NodeReport, NodeState, PeerPresence, decode_reports
from rayline.topics import BEATS_PARTITION, REPORTS
from runtime_env.peers.members import Member, Roster
from runtime_env.peers.options import PeerRates
from runtime_env.peers.throttle import Limits

# A node that missed so many beats is no peer any more: what fell to it falls to others.
MISSED_BEATS: Final = 4
TELL_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Peer(Protocol):
    """What this needs of `runtime_env.peers.node.PeerNode`."""

    @property
    def limits(self) -> Limits: ...

    def member(self) -> Member: ...

    def rates(self) -> PeerRates: ...

    def close(self) -> None: ...

    def set_members(self, members: Iterable[Member], /) -> None: ...

    def set_global_limit(self, total: int | None, /) -> None: ...

    def set_limits(self, *, download: int | None, upload: int | None) -> None: ...


class Peering:
    """Owns what is heard of other nodes, passes it on to this node's `Peer`, and ends that. Does not own when beats are sent.

    Life cycle: `presence` for each beat and `set_…` at any time; `run` until cancelled, which
    closes; `close` where it never ran.
    """

    def __init__(self, *, peer: Peer) -> None:
        self._peer = peer
        self._roster = Roster()
        self._told: tuple[Member, ...] = ()

    def presence(self) -> PeerPresence:
        """What a beat says of this node."""
        member = self._peer.member()
        rates = self._peer.rates()
        return PeerPresence(
            member.host,
            member.port,
            tuple(sorted(member.holds)),
            tuple(sorted(member.wants)),
            round(rates.receives),
            round(rates.sends),
            self._peer.limits.receive,
        )

    def set_total_limit(self, bytes_per_second: int) -> None:
        """What all nodes together may carry; 0 for no limit."""
        self._peer.set_global_limit(bytes_per_second or None)

    def set_own_limit(self, bytes_per_second: int) -> None:
        """What this node may carry in each direction; 0 for what it measures."""
        self._peer.set_limits(download=bytes_per_second or None, upload=bytes_per_second or None)

    def hear(self, value: bytes, now: float) -> None:
        """One record of beats; `now` in monotonic seconds. Raises FormatError."""
        for report in decode_reports(value):
            if report.state is NodeState.GONE:
                self._roster.remove(report.key)
            elif report.peer is not None:
                self._roster.hear(_member(report, report.peer), now, silence_seconds=MISSED_BEATS * report.interval_ms / 1000)

    def tell(self, now: float) -> None:
        """Pass on who is alive, where that changed."""
        alive = self._roster.alive(now)
        if alive != self._told:
            self._told = alive
            self._peer.set_members(alive)

    def close(self) -> None:
        """End the peer; fetches that wait raise PeerError, and go on from where they were at the next start. Blocks."""
        self._peer.close()

    async def run(self, settings: KafkaSettings) -> None:
        """Hear and tell until cancelled; a broker that is away leaves things as they are."""
        telling = asyncio.create_task(self._keep_telling(), name="tell peers")
        try:
            await for_ever(
                RaylineError,
                pause_seconds=RETRY_SECONDS,
                tell=lambda error: _log.warning("who shares blobs is not known for a moment: %s", error),
            )(self._listen, settings)
        finally:
            telling.cancel()
            await asyncio.wait({telling})
            await asyncio.to_thread(self.close)

    async def _listen(self, settings: KafkaSettings) -> None:
        log = CompactedLog(
            settings=settings, topic=REPORTS, from_end=True, partitions=[BEATS_PARTITION], client_id="rayline-peers"
        )
        async with log:
            async for record in log:
                if record.value is not None:
                    try:
                        self.hear(record.value, time.monotonic())
                    except FormatError as error:
                        _log.debug("a report is left out: %s", error)

    async def _keep_telling(self) -> None:
        while True:
            self.tell(time.monotonic())
            await asyncio.sleep(TELL_SECONDS)


def _member(report: NodeReport, peer: PeerPresence) -> Member:
    return Member(report.key, peer.host, peer.port, report.incarnation, frozenset(peer.holds), frozenset(peer.wants))
