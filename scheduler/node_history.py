"""What happened to nodes: transitions of their standing, as events. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rayline.events import Event
from scheduler.view import Standing, View

SOURCE: Final = "resource"
EVENT_ID: Final = "event-id"
_LIVING: Final = (Standing.SUSPECT, Standing.LOST)
_TEXTS: Final = {
    "joined": "joined",
    "ready": "is ready for work",
    "cordoned": "was cordoned: no new work",
    "uncordoned": "is no longer cordoned",
    "notice": "gave notice: no new work",
    "suspect": "fell silent: no new work until it is heard again",
    "lost": "has been silent for so long that it is given up",
    "recovered": "is heard again",
    "gone": "is gone",
}
KINDS: Final = tuple(f"node.{name}" for name in _TEXTS)


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """One event of a node. `identity` is the same for every resource that saw it, so that readers fold their records."""

    event: Event
    identity: str


@dataclass(slots=True)
class _Last:
    incarnation: int
    standing: Standing
    silent_seq: int = -1


class NodeHistory:
    """Owns the last standing of each node, and makes an event of each change. Does not own the view.

    Life: `know` what others told already → `look` at nodes as soon as they change, so that nothing short is missed, and
    `observe` the whole view from time to time, as silence is no change that anybody tells of.
    """

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}

    def know(self, view: View, keys: Iterable[str], now: float) -> None:
        """Other resources have told of these: what they are now is no event."""
        for key in keys:
            node, standing = view.get(key), view.standing(key, now)
            if node is not None and standing is not None:
                self._last[key] = _Last(node.report.incarnation, standing)

    def observe(self, view: View, now: float) -> list[NodeEvent]:
        """Events since the last time. Nodes that the view forgot are forgotten."""
        events: list[NodeEvent] = []
        standings = view.standings(now)
        for key, incarnation, standing in standings:
            last = self._last.get(key)
            if last is None or (last.incarnation, last.standing) != (incarnation, standing):
                events += self._step(view, key, incarnation, standing)
        if len(self._last) > len(standings):
            present = {key for key, _, _ in standings}
            self._last = {key: last for key, last in self._last.items() if key in present}
        return events

    def look(self, view: View, keys: Iterable[str], now: float) -> list[NodeEvent]:
        """Events of these nodes since the last time."""
        events: list[NodeEvent] = []
        for key in sorted(keys):
            node, standing = view.node(key), view.standing(key, now)
            if node is not None and standing is not None:
                events += self._step(view, key, node.incarnation, standing)
        return events

    def _step(self, view: View, key: str, incarnation: int, standing: Standing) -> list[NodeEvent]:
        events = []
        last = self._last.get(key)
        if last is None or last.incarnation != incarnation:
            last = self._last[key] = _Last(incarnation, Standing.STARTING)
            events.append(_event(view, key, "joined", last))
        if standing is not last.standing:
            kind = _kind(last.standing, standing)
            node = view.node(key)
            if standing is Standing.SUSPECT and node is not None:
                last.silent_seq = node.beat_seq
            last.standing = standing
            if kind is not None:
                events.append(_event(view, key, kind, last))
        return events


def _kind(before: Standing, after: Standing) -> str | None:
    if after is Standing.DRAINING:
        return "notice"
    if after in (Standing.SUSPECT, Standing.LOST, Standing.GONE, Standing.CORDONED):
        return after.value
    if before in _LIVING:
        return "recovered"
    if before is Standing.CORDONED:
        return "uncordoned"
    return "ready" if after is Standing.READY else None


def _event(view: View, key: str, kind: str, last: _Last) -> NodeEvent:
    node = view.get(key)
    reason = node.report.reason if node is not None else None
    identity = f"{kind}/{last.incarnation}"
    if kind in ("suspect", "lost", "recovered"):
        identity += f"/{last.silent_seq}"
    return NodeEvent(Event(SOURCE, f"node.{kind}", key, f"{key} {_TEXTS[kind]}", reason), identity)
