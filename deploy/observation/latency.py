"""Latencies and outcomes by second, in bounded memory: logarithmic histograms, merged into windows. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from deploy.observation.snapshot import Point, Window
from rayline.results import Outcome

# A percentile is told at most 3 % too high: the upper bound of its bucket.
_GROWTH: Final = 1.03
_LOG_GROWTH: Final = math.log(_GROWTH)
_LOWEST_MS: Final = 0.1
_HIGHEST_MS: Final = 86_400_000.0
FINE_SECONDS: Final = 60
COARSE_SECONDS: Final = 10
SPAN_SECONDS: Final = 900
WINDOWS: Final = (10, 60, SPAN_SECONDS)
# Anybody may write into a topic: of more versions in one slice the others are not told apart.
MOST_VERSIONS: Final = 20


class Histogram:
    """Counts by bucket; the highest value is kept as it is. Owns nothing else."""

    __slots__ = ("buckets", "count", "highest")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.highest = 0.0

    def add(self, value_ms: float) -> None:
        value_ms = min(max(value_ms, _LOWEST_MS), _HIGHEST_MS)
        bucket = math.ceil(math.log(value_ms / _LOWEST_MS) / _LOG_GROWTH)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.highest = max(self.highest, value_ms)

    def merge(self, other: Histogram) -> None:
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self.highest = max(self.highest, other.highest)

    def percentile(self, share: float) -> float | None:
        """Nearest rank; None of nothing."""
        if self.count == 0:
            return None
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return round(min(_LOWEST_MS * _GROWTH**bucket, self.highest), 2)
        return self.highest


@dataclass(slots=True)
class _Slice:
    """What came within some seconds; `skipped` results were not read."""

    latency: Histogram = field(default_factory=Histogram)
    outcomes: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    read: int = 0
    skipped: int = 0

    def merge(self, other: _Slice) -> None:
        self.latency.merge(other.latency)
        self.outcomes.update(other.outcomes)
        for version, count in other.versions.items():
            self.answer(version, count)
        self.misses += other.misses
        self.read += other.read
        self.skipped += other.skipped

    def answer(self, version: str, count: int = 1) -> None:
        if version in self.versions or len(self.versions) < MOST_VERSIONS:
            self.versions[version] += count

    @property
    def scale(self) -> float:
        return (self.read + self.skipped) / self.read if self.read else 1.0


class ResultMeter:
    """The results of one app over the last 15 minutes.

    Owns a slice for each of the last 60 seconds, one for each 10 seconds before, and a point for each second: it does not grow.
    Time is the broker's (epoch milliseconds). What is older than the span is left out, what is of the future is of now.
    """

    def __init__(self) -> None:
        self._fine: dict[int, _Slice] = {}
        self._coarse: dict[int, _Slice] = {}
        self._points: dict[int, Point] = {}
        self.last_ms: int | None = None

    def take(
        self, *, at_ms: int, outcome: str, latency_ms: float | None, missed: bool, now_ms: int, version: str | None = None
    ) -> None:
        """One result that was read; `version` is that of the app that answered, where one did."""
        for piece in self._slices(at_ms // 1000, now_ms // 1000):
            piece.read += 1
            piece.outcomes[outcome] += 1
            piece.misses += missed
            if version is not None:
                piece.answer(version)
            if latency_ms is not None:
                piece.latency.add(latency_ms)
        self.last_ms = max(self.last_ms or 0, at_ms)

    def skip(self, count: int, now_ms: int, seconds: int = 1) -> None:
        """So many results of the last seconds were not read: they count as those that were read beside them."""
        now = now_ms // 1000
        for second in range(now - seconds + 1, now + 1):
            share = count // seconds + (second - now + seconds <= count % seconds)
            for piece in self._slices(second, now) if share else ():
                piece.skipped += share

    def window(self, seconds: int, now_ms: int) -> Window:
        """The last `seconds` whole seconds before this one."""
        until = now_ms // 1000
        merged = _Slice()
        if seconds <= FINE_SECONDS:
            pieces: Iterable[_Slice] = (piece for second, piece in self._fine.items() if until - seconds <= second < until)
        else:
            first = (until - seconds) // COARSE_SECONDS
            pieces = (piece for ten, piece in self._coarse.items() if ten > first)
        for piece in pieces:
            merged.merge(piece)
        scale = merged.scale
        return Window(
            seconds=seconds,
            results=merged.read + merged.skipped,
            sampled=merged.read,
            outcomes={
                outcome.value: round(merged.outcomes[outcome.value] * scale)
                for outcome in Outcome
                if merged.outcomes[outcome.value]
            },
            misses=round(merged.misses * scale),
            p50_ms=merged.latency.percentile(0.5),
            p99_ms=merged.latency.percentile(0.99),
            max_ms=round(merged.latency.highest, 2) if merged.latency.count else None,
            versions={version: round(count * scale) for version, count in merged.versions.most_common()},
        )

    def points(self, seconds: int, now_ms: int) -> tuple[Point, ...]:
        """Second by second, oldest first, without gaps; the present second is not among them."""
        until = now_ms // 1000
        return tuple(self._point(second) for second in range(until - seconds, until))

    def forget(self, now_ms: int) -> None:
        """Drop what is out of every window."""
        second = now_ms // 1000
        for old in [at for at in self._fine if at < second - FINE_SECONDS]:
            self._points[old] = _point(old, self._fine.pop(old))
        for old in [at for at in self._points if at < second - SPAN_SECONDS]:
            del self._points[old]
        for old in [at for at in self._coarse if at < (second - SPAN_SECONDS) // COARSE_SECONDS]:
            del self._coarse[old]

    def _slices(self, second: int, now: int) -> list[_Slice]:
        second = min(second, now)
        if second <= now - SPAN_SECONDS:
            return []
        slices = [self._coarse.setdefault(second // COARSE_SECONDS, _Slice())]
        if second >= now - FINE_SECONDS:
            slices.append(self._fine.setdefault(second, _Slice()))
        return slices

    def _point(self, second: int) -> Point:
        piece = self._fine.get(second)
        if piece is not None:
            return _point(second, piece)
        return self._points.get(second) or Point(second, 0, None, None, None, 0, 0)


def _point(second: int, piece: _Slice) -> Point:
    bad = sum(count for outcome, count in piece.outcomes.items() if outcome != Outcome.OK.value)
    return Point(
        second=second,
        results=piece.read + piece.skipped,
        p50_ms=piece.latency.percentile(0.5),
        p99_ms=piece.latency.percentile(0.99),
        max_ms=round(piece.latency.highest, 2) if piece.latency.count else None,
        misses=round(piece.misses * piece.scale),
        errors=round(bad * piece.scale),
    )
