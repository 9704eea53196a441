"""What `rayline env peers` shows: which nodes give blobs to each other, what they have, and how fast they move it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rayline.bus import CompactedLog, KafkaSettings
from rayline.errors import FormatError
from rayline.reports import NodeReport, NodeState, PeerPresence, decode_reports
from rayline.topics import BEATS_PARTITION, REPORTS
from runtime_env.bundle import Layer
from workers.peering import MISSED_BEATS

# The longest that nodes may be told to leave between two beats.
MEMORY_SECONDS: Final = 61.0


@dataclass(frozen=True, slots=True)
class PeerNodeState:
    """One node as its newest beat has it; `heard_ms` is the broker's time of that."""

    report: NodeReport
    peer: PeerPresence
    heard_ms: int

    def as_dict(self) -> dict[str, Any]:
        peer = self.peer
        return {
            "node": self.report.key,
            "host": peer.host,
            "port": peer.port,
            "holds": len(peer.holds),
            "fetches": len(peer.wants),
            "receives_bytes_per_second": peer.receives,
            "sends_bytes_per_second": peer.sends,
            "limit_bytes_per_second": peer.limit,
        }


@dataclass(frozen=True, slots=True)
class LayerSpread:
    """Which nodes have a layer whole, and which fetch it."""

    layer: Layer
    held_by: tuple[str, ...]
    fetched_by: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        layer = self.layer
        return {
            "layer": layer.name,
            "digest": layer.digest,
            "size_bytes": layer.size_bytes,
            "held_by": list(self.held_by),
            "fetched_by": list(self.fetched_by),
        }


async def read_peers(settings: KafkaSettings) -> list[PeerNodeState]:
    """The nodes that take part now, by name, from the beats of the last minute. Raises BusError."""
    log = CompactedLog(
        settings=settings,
        topic=REPORTS,
        since_ms=round((time.time() - MEMORY_SECONDS) * 1000),
        partitions=[BEATS_PARTITION],
        client_id="rayline-env-peers",
    )
    newest: dict[str, tuple[NodeReport, int]] = {}
    async with log:
        while not log.caught_up.is_set():
            for record in await log.getmany(timeout_ms=500):
                for report in _reports(record.value):
                    if report.beat and report.age_ms == 0:
                        newest[report.key] = (report, record.timestamp_ms)
    now_ms = max((heard_ms for _, heard_ms in newest.values()), default=0)
    return [
        PeerNodeState(report, report.peer, heard_ms)
        for _, (report, heard_ms) in sorted(newest.items())
        if report.peer is not None
        and report.state is not NodeState.GONE
        and now_ms - heard_ms <= MISSED_BEATS * report.interval_ms
    ]


def spread_of(nodes: Iterable[PeerNodeState], tags: Mapping[str, Layer]) -> list[LayerSpread]:
    """Where each layer is; `tags` are the layers by the tag of their swarm."""
    known = list(nodes)
    return [
        LayerSpread(
            layer,
            tuple(one.report.key for one in known if tag in one.peer.holds),
            tuple(one.report.key for one in known if tag in one.peer.wants),
        )
        for tag, layer in tags.items()
    ]


def _reports(value: bytes | None) -> list[NodeReport]:
    try:
        return [] if value is None else decode_reports(value)
    except FormatError:
        # Another version's, or not ours: whoever merges reports counts those.
        return []
