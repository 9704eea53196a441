"""Watches results after a change, beside those before it, and says when it made things worse. The judge is pure."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from math import exp, log
from typing import Any, Final

from deploy.lane_claims import LaneClaims, read_claims
from rayline.bus import CompactedLog, KafkaSettings, LogRecord
from rayline.bus.progress import GroupProgress
from rayline.errors import FormatError
from rayline.results import OUTCOME, TIMING, Outcome, parse_timing
from rayline.topics import group_id, requests_topic, results_topic

# Latencies are counted in steps of 5 %: memory stays the same at any rate.
_STEP: Final = log(1.05)
_POLL_MS: Final = 200
MIN_RESULTS: Final = 30
# Results that stop coming are judged after so long.
JAM_SECONDS: Final = 5.0
# A change is judged worse when it is so this many looks in a row, one each second.
LOOKS: Final = 3
LOOK_SECONDS: Final = 1.0
# The first results after a change still carry what was read before it.
SETTLE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Margin:
    """How much worse is worse: p50 or p99 above `p99_factor` times the old one plus `p99_extra_ms`; deadline misses, or errors
    or invalid jobs, more by these shares of all results; results slower than `rate_share` of the old rate while jobs wait."""

    p99_factor: float = 1.25
    p99_extra_ms: float = 100.0
    miss_share: float = 0.01
    error_share: float = 0.01
    rate_share: float = 0.2


@dataclass(frozen=True, slots=True)
class Quality:
    """Results of a span of time. Latencies are None without any; `waiting` counts jobs without a result, where asked."""

    seconds: float
    results: int
    misses: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    waiting: int | None = None
    invalid: int = 0

    @property
    def rate(self) -> float:
        return self.results / self.seconds if self.seconds > 0 else 0.0

    @property
    def miss_share(self) -> float:
        return self.misses / self.results if self.results else 0.0

    @property
    def error_share(self) -> float:
        return self.errors / self.results if self.results else 0.0

    @property
    def invalid_share(self) -> float:
        return self.invalid / self.results if self.results else 0.0


class Tally:
    """Counts results as they come."""

    def __init__(self) -> None:
        self._latencies: Counter[int] = Counter()
        self._misses = 0
        self._errors = 0
        self._invalid = 0

    def add(self, outcome: str, latency_ms: float) -> None:
        self._latencies[round(log(max(latency_ms, 0.1)) / _STEP)] += 1
        self._misses += outcome == Outcome.DEADLINE_EXCEEDED.value
        self._errors += outcome in (Outcome.ERROR.value, Outcome.QUARANTINED.value)
        # A setting may refuse what was taken before it; such results come fast.
        self._invalid += outcome == Outcome.INVALID.value

    def quality(self, seconds: float) -> Quality:
        p50, p99 = self._quantile(0.5), self._quantile(0.99)
        return Quality(seconds, self._latencies.total(), self._misses, self._errors, p50, p99, invalid=self._invalid)

    def _quantile(self, share: float) -> float | None:
        beyond = self._latencies.total() * (1 - share)
        for step in sorted(self._latencies, reverse=True):
            beyond -= self._latencies[step]
            if beyond < 0:
                return round(exp(step * _STEP), 1)
        return None


def worse(before: Quality, after: Quality, margin: Margin) -> list[str]:
    """In what respects it is worse, in words; empty: in none, or too little is known."""
    if before.results < MIN_RESULTS:
        return []
    if after.seconds >= JAM_SECONDS and after.rate < before.rate * margin.rate_share and (after.waiting or 0) >= MIN_RESULTS:
        return [f"{after.rate:.1f} results a second, were {before.rate:.1f}, and {after.waiting} jobs wait"]
    if after.results < MIN_RESULTS:
        return []
    found = []
    for name, ms, was in (("p99", after.p99_ms, before.p99_ms), ("p50", after.p50_ms, before.p50_ms)):
        if ms is not None and was is not None and ms > (limit := was * margin.p99_factor + margin.p99_extra_ms):
            found.append(f"{name} is {ms:.0f} ms, was {was:.0f} ms (limit {limit:.0f} ms)")
    for name, now, then, allowed in (
        ("deadline misses", after.miss_share, before.miss_share, margin.miss_share),
        ("errors", after.error_share, before.error_share, margin.error_share),
        ("invalid jobs", after.invalid_share, before.invalid_share, margin.error_share),
    ):
        if now > then + allowed:
            found.append(f"{name} are {now:.1%} of the results, were {then:.1%} (limit {then + allowed:.1%})")
    return found


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reasons` is empty where the change stays."""

    before: Quality
    after: Quality
    seconds: float
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons), "margin_results": MIN_RESULTS}

    def text(self) -> str:
        def line(name: str, q: Quality) -> str:
            p99 = "–" if q.p99_ms is None else f"{q.p99_ms:.0f} ms"
            shares = f"misses {q.miss_share:.1%}, errors {q.error_share:.1%}, invalid {q.invalid_share:.1%}"
            return f"  {name}: {q.results} results, p99 {p99}, {shares}"

        few = min(self.before.results, self.after.results) < MIN_RESULTS
        verdict = "; ".join(self.reasons) or ("too few results to judge by" if few else "not worse")
        return "\n".join([f"guarded for {self.seconds:.0f} s: {verdict}", line("before", self.before), line("after", self.after)])


class ResultGuard:
    """Reads the results of some apps. Owns its readers.

    Life: `async with` → `before` (reads back over the span before now) → the change is made → `after`.
    """

    def __init__(
        self, settings: KafkaSettings, apps: Collection[str], *, span_seconds: float, instance: str | None = None
    ) -> None:
        """`instance`: only results of this lane count, and those that it never sent to a node."""
        since_ms = round((time.time() - span_seconds) * 1000)
        self._logs = [
            CompactedLog(settings=settings, topic=results_topic(app), since_ms=since_ms, client_id="rayline-config-guard")
            for app in sorted(apps)
        ]
        self._settings = settings
        self._apps = sorted(apps)
        self._instance = instance
        self._claims = LaneClaims()
        self._span_seconds = span_seconds
        self._before = Quality(span_seconds, 0, 0, 0, None, None)

    async def __aenter__(self) -> ResultGuard:
        try:
            for reader in self._logs:
                await reader.start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(reader.stop() for reader in self._logs))

    async def before(self) -> Quality:
        """The results of the span before now."""
        tally = Tally()
        await self._learn_claims()
        while not all(reader.caught_up.is_set() for reader in self._logs):
            await self._read(tally)
        self._before = tally.quality(self._span_seconds)
        return self._before

    async def after(self, seconds: float, margin: Margin, on_look: Callable[[Quality], None] | None = None) -> Judgement:
        """Watch for so long; ends early when it is worse for some looks in a row."""
        began = since = time.monotonic()
        bad, reasons, tally = 0, [], Tally()
        await self._learn_claims()
        look_at = began + SETTLE_SECONDS + LOOK_SECONDS
        quality = tally.quality(0.0)
        while (now := time.monotonic()) < began + seconds and bad < LOOKS:
            await self._read(tally)
            if since == began and now >= began + SETTLE_SECONDS:
                since, tally = now, Tally()
            if now >= look_at:
                look_at = now + LOOK_SECONDS
                await self._learn_claims()
                quality = await self._look(tally, now - since)
                reasons = worse(self._before, quality, margin)
                bad = bad + 1 if reasons else 0
                if on_look is not None:
                    on_look(quality)
        return Judgement(self._before, quality, time.monotonic() - began, tuple(reasons))

    async def _look(self, tally: Tally, seconds: float) -> Quality:
        quality = tally.quality(seconds)
        if quality.rate >= self._before.rate:
            return quality
        waiting = 0
        for app in self._apps:
            group = GroupProgress(settings=self._settings, group_id=group_id(app), topic=requests_topic(app))
            async with group as progress:
                waiting += await progress.lag()
        return replace(quality, waiting=waiting)

    async def _learn_claims(self) -> None:
        if self._instance is not None:
            for app in self._apps:
                self._claims.learn(await read_claims(self._settings, app))

    async def _read(self, tally: Tally) -> None:
        for records in await asyncio.gather(*(reader.getmany(timeout_ms=_POLL_MS) for reader in self._logs)):
            for record in records:
                self._count(record, tally)

    def _count(self, record: LogRecord, tally: Tally) -> None:
        headers = dict(record.headers)
        if self._instance is not None and self._claims.lane_of(headers) != self._instance:
            return
        try:
            latency_ms = sum(parse_timing(headers.get(TIMING, b"").decode("utf-8", "replace")).values())
        except FormatError:
            return
        tally.add(headers.get(OUTCOME, b"").decode("utf-8", "replace"), latency_ms)
