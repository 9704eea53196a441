"""Each hop of an eviction as one lane saw it: when it heard that a node leaves, and when it stopped sending there. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from rayline.reports import NodeState
from scheduler.view import NodeFacts

DEPARTURES_KEPT: Final = 50


class Way(StrEnum):
    """What took a node out of the rotation: what was told of it, its actor's refusal of a batch, or its silence."""

    NEWS = "news"
    ACTOR = "actor"
    SILENCE = "silence"


@dataclass(slots=True)
class _Departure:
    """Times are monotonic seconds; `said_ms` is the number of the report that said it: the node's own clock (epoch ms)."""

    incarnation: int
    state: str | None = None
    said_ms: int | None = None
    written_at: float | None = None
    heard_at: float | None = None
    out_at: float | None = None
    way: Way | None = None
    update: int | None = None


class Departures:
    """Owns what is known of the last nodes that left the rotation. Decides nothing.

    Life of an entry: `news` and `out` in either order → `back` where the node gets work again, or room is needed.
    """

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, _Departure] = OrderedDict()

    def news(self, node: NodeFacts, *, written_at: float, heard_at: float) -> None:
        """A report was heard that the node drains or is gone; later ones of the same life say nothing new."""
        if node.state < NodeState.DRAINING:
            return
        entry = self._entry(node.key, node.incarnation)
        if entry.heard_at is None:
            entry.state, entry.said_ms = node.state.name.lower(), node.said_seq
            entry.written_at, entry.heard_at = written_at, heard_at

    def out(self, key: str, incarnation: int, way: Way, now: float, *, update: int) -> None:
        """From here on the node gets nothing new; `update` names the weights that say so."""
        entry = self._entry(key, incarnation)
        if entry.out_at is None:
            entry.out_at, entry.way, entry.update = now, way, update

    def silent(self, node: NodeFacts, now: float, *, update: int) -> None:
        """The node gets nothing new since it is silent."""
        entry = self._entry(node.key, node.incarnation)
        if entry.out_at is None and entry.heard_at is None:
            entry.state, entry.said_ms, entry.written_at = "silent", node.beat_seq, node.heard
        self.out(node.key, node.incarnation, Way.SILENCE, now, update=update)

    def back(self, key: str) -> None:
        """The node gets work."""
        self._nodes.pop(key, None)

    def told(self) -> dict[str, Mapping[str, Any]]:
        """By node, as plain values; milliseconds count from when the broker had the news (of silence: the last beat)."""
        return {key: _plain(entry) for key, entry in self._nodes.items() if entry.out_at is not None}

    def _entry(self, key: str, incarnation: int) -> _Departure:
        entry = self._nodes.get(key)
        if entry is None or entry.incarnation != incarnation:
            entry = self._nodes[key] = _Departure(incarnation)
            self._nodes.move_to_end(key)
            if len(self._nodes) > DEPARTURES_KEPT:
                self._nodes.popitem(last=False)
        return entry


def _plain(entry: _Departure) -> dict[str, Any]:
    def after_ms(at: float | None) -> float | None:
        return None if at is None or entry.written_at is None else round((at - entry.written_at) * 1000, 1)

    return {
        "incarnation": entry.incarnation,
        "state": entry.state,
        "said_ms": entry.said_ms,
        "heard_after_ms": after_ms(entry.heard_at),
        "out_after_ms": after_ms(entry.out_at),
        "by": None if entry.way is None else entry.way.value,
        "update": entry.update,
    }
