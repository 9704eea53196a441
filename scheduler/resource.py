"""A resource: merges what nodes report and passes the sum on to lanes and to other resources. Pure; stateless across restarts.

Every resource of a group hears the reports itself, or those of the groups below it, and publishes only what it heard itself:
R resources exchange R(R-1) aggregates a round however many nodes there are, and nothing echoes. What peers tell completes the
picture (`view`) but is not passed on. Most rounds carry what beats bring, every third one all that is known; what changes is
passed on at once and complete. Any of them may be killed: the others hear the same reports.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from rayline.reports import NodeReport
from rayline.view_record import BEATS_CHUNK, DEFAULT_GROUP, NEWS_CHUNK, ViewKey, encode_chunks
from scheduler.listener import Heard
from scheduler.node_history import NodeEvent, NodeHistory
from scheduler.router import phase_of
from scheduler.view import FORGET_AFTER_SECONDS, View

NEWS_PAUSE_SECONDS: Final = 0.05
# Readers that join look back for longer than this takes (`scheduler.node_feed`).
WHOLE_EVERY_ROUNDS: Final = 3
DEFAULT_INTERVAL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record for `rayline.view`; a value of None ends the key."""

    key: ViewKey
    value: bytes | None


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """Counts since the start: records heard of nodes and of peers, rounds and records published, their bytes."""

    nodes: int
    peers: int
    heard: int
    told: int
    rounds: int
    published: int
    published_bytes: int


@dataclass(slots=True)
class _Peer:
    last_at: float
    chunks: set[ViewKey] = field(default_factory=set)


class Resource:
    """Owns the view of one resource, its rounds, and the events of nodes. Does not own Kafka, nor weights.

    Life: `take` what is heard at any time → `started` once everything of before is read → `records` when `due` has come.
    """

    def __init__(
        self,
        *,
        name: str,
        group: str = DEFAULT_GROUP,
        clusters: Sequence[str] = (),
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        """`clusters`: name patterns (as a shell's) of the clusters that it listens to; none: all."""
        self.name = name
        self.group = group
        self._own = View(beat_seconds=interval_seconds)
        # The same one until a peer speaks: what it heard itself is all there is.
        self.view = self._own
        self._clusters = tuple(clusters)
        self._history = NodeHistory()
        self._seen: list[NodeEvent] = []
        self._latest = -math.inf
        self._peers: dict[str, _Peer] = {}
        self._news: set[str] = set()
        self._chunks = 0
        self._round_at = math.inf
        self._rounded_at = -math.inf
        self._news_at = -math.inf
        self._heard = self._told = self._rounds = self._published = self._published_bytes = 0
        self._interval_seconds = interval_seconds
        self._phase = phase_of(name)

    def set_interval(self, seconds: float) -> None:
        """A round so often from now on: one that would come later than that is `due` earlier."""
        self._interval_seconds = seconds
        if self._rounded_at > -math.inf:
            self._round_at = min(self._round_at, self._next_round(self._rounded_at))
        self.view.beat_seconds = self._own.beat_seconds = seconds

    def set_lost_after(self, seconds: float) -> None:
        """Tell of a node as lost after so much silence."""
        self.view.lost_after_seconds = self._own.lost_after_seconds = seconds

    def started(self, now: float) -> None:
        """Everything that was written before is taken: what peers told of nodes is known, and the first round is due."""
        if self._peers:
            self._history.know(self.view, [node.key for node in self.view.nodes()], now)
        self._round_at = now

    def take(self, heard: Heard) -> None:
        """Reports of nodes or of groups below (passed on), or of peers (not passed on)."""
        source = heard.source
        if source is not None and source.group == self.group:
            if source.resource != self.name:
                self._told += 1
                if self.view is self._own:
                    self.view = self._own.copy()
                peer = self._peers.setdefault(source.resource, _Peer(heard.at))
                peer.last_at = max(peer.last_at, heard.at)
                peer.chunks.add(source)
                self._look(self.view.apply(heard.reports, heard.at, ears=heard.ears), heard.at)
            return
        self._heard += 1
        reports = [report for report in heard.reports if self._listens_to(report)]
        changed = self._own.apply(reports, heard.at, ears=heard.ears)
        self._news |= changed
        if self.view is not self._own:
            changed = changed | self.view.apply(reports, heard.at, ears=heard.ears)
        self._look(changed, heard.at)

    def due(self) -> float:
        """When `records` should be asked next (monotonic seconds)."""
        if self._news and self._round_at < math.inf:
            return min(self._round_at, self._news_at + NEWS_PAUSE_SECONDS)
        return self._round_at

    def records(self, now: float) -> list[Outgoing]:
        """What to publish now: a whole round when its time has come, else what is new, at once."""
        if now >= self._round_at:
            outgoing = self._round(now)
        elif self._news and now >= self._news_at + NEWS_PAUSE_SECONDS:
            reports = self._own.reports(now, self._news)
            outgoing = [Outgoing(self._key(NEWS_CHUNK), value) for value in self._encode(reports, now)]
        else:
            return []
        self._news.clear()
        self._news_at = now
        self._published += len(outgoing)
        self._published_bytes += sum(len(record.value or b"") for record in outgoing)
        return outgoing

    def events(self, now: float) -> list[NodeEvent]:
        """What happened to nodes since the last time, also what has passed meanwhile: a notice of a pod that is gone by now."""
        seen, self._seen = self._seen, []
        return seen + self._history.observe(self.view, now)

    @property
    def has_events(self) -> bool:
        """Whether `events` would tell of something at once."""
        return bool(self._seen)

    def statistics(self) -> ResourceStatistics:
        return ResourceStatistics(
            nodes=len(self.view.standings(self.view.ears)),
            peers=len(self._peers),
            heard=self._heard,
            told=self._told,
            rounds=self._rounds,
            published=self._published,
            published_bytes=self._published_bytes,
        )

    def _look(self, changed: set[str], at: float) -> None:
        """Note what these nodes do. What comes late does not turn back the time at which silence is judged."""
        self._latest = max(self._latest, at)
        if changed and self._round_at < math.inf:
            self._seen += self._history.look(self.view, changed, self._latest)

    def _round(self, now: float) -> list[Outgoing]:
        whole = self._rounds % WHOLE_EVERY_ROUNDS == 0
        self._rounds += 1
        self._rounded_at = now
        self._round_at = self._next_round(now)
        if not whole:
            values = self._encode(self._own.beats(now, whole=self._news), now)
            beats = [Outgoing(self._key(f"{BEATS_CHUNK}{number}"), value) for number, value in enumerate(values)]
            return beats + self._tombstones(now)
        values = self._encode(self._own.reports(now), now)
        outgoing = [Outgoing(self._key(str(number)), value) for number, value in enumerate(values)]
        outgoing += [Outgoing(self._key(str(number)), None) for number in range(len(values), self._chunks)]
        self._chunks = len(values)
        return outgoing + self._tombstones(now)

    def _next_round(self, now: float) -> float:
        """Rounds keep a beat of their own: resources of one machine take turns, so that readers hear of a node more often."""
        interval = self._interval_seconds
        offset = self._phase * interval
        following = (math.floor((now - offset) / interval) + 1) * interval + offset
        return following if following >= now + interval / 2 else following + interval

    def _tombstones(self, now: float) -> list[Outgoing]:
        """End the records of peers that have been silent for so long that their nodes are forgotten."""
        ended = [name for name, peer in self._peers.items() if now - peer.last_at > FORGET_AFTER_SECONDS]
        return [Outgoing(key, None) for name in ended for key in sorted(self._peers.pop(name).chunks, key=str)]

    def _encode(self, reports: list[NodeReport], now: float) -> list[bytes]:
        age_seconds = min(now - self._own.ears, FORGET_AFTER_SECONDS)
        return list(encode_chunks(reports, ears_age_ms=max(0, round(age_seconds * 1000))))

    def _key(self, chunk: str) -> ViewKey:
        return ViewKey(self.group, self.name, chunk)

    def _listens_to(self, report: NodeReport) -> bool:
        return not self._clusters or any(fnmatchcase(report.cluster, pattern) for pattern in self._clusters)
