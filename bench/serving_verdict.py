"""What a run of `bench.serving_beside_download` says: pure, made from plain values. Times are epoch milliseconds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

P99_RATIO: Final = 1.10
SETTLED_MS: Final = 5_000
MEMORY_BYTES: Final = 200 * 2**20
LEAST_JOBS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time."""

    begin_ms: float
    end_ms: float

    def has(self, at_ms: float) -> bool:
        return self.begin_ms <= at_ms < self.end_ms


@dataclass(frozen=True, slots=True)
class Beat:
    """One node at one moment: the phase of what is downloaded (empty: nothing), and the bytes a second that it receives."""

    at_ms: int
    node: str
    phase: str
    receives: int


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of jobs that were to arrive in some spans: how many had a result, how many none, and their quantiles (ms)."""

    jobs: int
    missing: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Latencies `without` and `beside` a download; `mean_rate` is what a node received while it fetched (bytes a second);
    `limited_rates` are the sums of all nodes from SETTLED_MS after the global `limit` was set."""

    without: Latencies
    beside: Latencies
    rounds: int
    mean_rate: float
    agent_memory_bytes: int
    limit: int
    limited_rates: tuple[int, ...]

    def bars(self) -> dict[str, bool]:
        ratio = self.beside.p99_ms / self.without.p99_ms if self.without.p99_ms else float("inf")
        enough = min(self.without.jobs, self.beside.jobs) >= LEAST_JOBS and self.rounds > 1
        return {
            f"p99 beside a download ≤ {P99_RATIO:g} × without (here {ratio:.3f})": enough and ratio <= P99_RATIO,
            "every job has its result": self.without.missing + self.beside.missing == 0,
            f"an agent stays under {MEMORY_BYTES / 2**20:.0f} MiB": 0 < self.agent_memory_bytes < MEMORY_BYTES,
            f"the sum of rates obeys a new global limit within {SETTLED_MS / 1000:g} s": bool(self.limited_rates)
            and max(self.limited_rates) <= self.limit,
        }

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "bars": self.bars()}


def fetching_spans(beats: Iterable[Beat], nodes: int, *, phase: str = "fetching") -> list[Span]:
    """When all `nodes` were fetching at once: what is between the first and the last such moment of each download."""
    now: dict[str, str] = {}
    spans: list[Span] = []
    began: int | None = None
    last = 0
    for beat in sorted(beats, key=lambda one: one.at_ms):
        now[beat.node] = beat.phase
        if sum(one == phase for one in now.values()) >= nodes:
            began = beat.at_ms if began is None else began
            last = beat.at_ms
        elif began is not None:
            spans.append(Span(began, last))
            began = None
    if began is not None:
        spans.append(Span(began, last))
    return [span for span in spans if span.end_ms > span.begin_ms]


def latencies_in(spans: Sequence[Span], intended_ms: Sequence[float], seen_ms: Mapping[int, float]) -> Latencies:
    """By the number of the job: when it was to arrive, and when its result was seen."""
    wanted = [number for number, at_ms in enumerate(intended_ms) if any(span.has(at_ms) for span in spans)]
    found = [seen_ms[number] - intended_ms[number] for number in wanted if number in seen_ms]
    cuts = statistics.quantiles(found, n=100) if len(found) > 1 else [0.0] * 99
    return Latencies(len(found), len(wanted) - len(found), round(cuts[49], 2), round(cuts[98], 2))


def sums_of_rates(beats: Iterable[Beat], limited: Span, *, phase: str = "fetching") -> tuple[int, ...]:
    """What all nodes together received, at each beat from SETTLED_MS after the limit was set to its end, while any fetched."""
    now: dict[str, Beat] = {}
    sums = []
    for beat in sorted(beats, key=lambda one: one.at_ms):
        now[beat.node] = beat
        if limited.begin_ms + SETTLED_MS <= beat.at_ms < limited.end_ms and any(one.phase == phase for one in now.values()):
            sums.append(sum(one.receives for one in now.values()))
    return tuple(sums)
