"""How one lane sees the nodes that it sends to: weights, their factors, what is in flight; records of `rayline.view`.

Keys are `lanes/<app>/<lane>`. For people and the console, never for control.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rayline.errors import FormatError

MAX_NODES: Final = 1_000
# A lane whose last record is twice as old as this is no longer there.
REPEAT_SECONDS: Final = 20.0
_PREFIX: Final = "lanes"
_VERSION: Final = 1
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class LaneRecord:
    """One lane's nodes, by key (`Router.explain_node`), at most MAX_NODES of `nodes_total`; `stale`: nobody is heard. `left`
    tells of the last nodes that got no more work, each hop of the news (`Departures.told`)."""

    app: str
    lane: str
    stale: bool
    nodes_total: int
    nodes: Mapping[str, Mapping[str, Any]]
    left: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        return f"{_PREFIX}/{self.app}/{self.lane}".encode()


def encode_lane_record(record: LaneRecord) -> bytes:
    """One record value; figures are rounded, so that what does not change looks the same."""
    nodes, left = _rounded(record.nodes), _rounded(record.left)
    data = {"v": _VERSION, "stale": record.stale, "nodes_total": record.nodes_total, "nodes": nodes, "left": left}
    return json.dumps(data, separators=(",", ":")).encode()


def decode_lane_record(key: bytes | None, value: bytes) -> LaneRecord | None:
    """None for a key of another kind of record; raises FormatError on anything that is not a lane's record."""
    parts = (key or b"").decode("utf-8", "replace").split("/")
    if len(parts) != 3 or parts[0] != _PREFIX:
        return None
    try:
        data: Any = json.loads(value)
        if data["v"] != _VERSION:
            raise FormatError(f"lane record of version {data['v']!r}; this Rayline reads version {_VERSION}")
        nodes, left = data["nodes"], data.get("left", {})
        if not all(isinstance(told, dict) and all(isinstance(node, dict) for node in told.values()) for told in (nodes, left)):
            raise FormatError("a lane record whose nodes are no objects")
        return LaneRecord(parts[1], parts[2], bool(data["stale"]), int(data["nodes_total"]), nodes, left)
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"not a lane record: {error!r}") from error


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(float(value), _DIGITS)
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    return value
