"""What the actors of a pod did and hold, counted by their agent: an actor has no page of metrics of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from rayline.metrics import Sample
from rayline.metrics.declared import (
    ACTOR_BATCHES,
    ACTOR_CPU,
    ACTOR_IN_FLIGHT,
    ACTOR_JOBS,
    ACTOR_MEMORY,
    ACTOR_PROCESSES,
    APP,
    VERSION,
)
from workers.job_gauge import GAUGE_SUFFIX, Gauged, read_gauge
from workers.pod_actors import read_pod_actors

# Of a version without an actor, totals are shown for so long: readers have taken the last ones by then.
FORGET_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class ActorLook:
    """One living actor at one moment."""

    pid: int
    app: str
    version: str
    gauged: Gauged
    cpu_seconds: float
    memory_bytes: int


@dataclass(slots=True)
class _Total:
    jobs: int = 0
    batches: int = 0
    cpu_seconds: float = 0.0
    processes: int = 0
    in_flight: int = 0
    memory_bytes: int = 0
    seen_at: float = 0.0


class ActorTally:
    """Owns totals by app and version, which only grow, whoever of the actors ends; and what each actor said last. Pure.

    An actor that ends takes along what it did since the last look.
    """

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], _Total] = {}
        self._last: dict[int, ActorLook] = {}

    def observe(self, looks: Iterable[ActorLook], now: float) -> None:
        """All actors that live now (monotonic seconds)."""
        for total in self._totals.values():
            total.processes = total.in_flight = total.memory_bytes = 0
        living: dict[int, ActorLook] = {}
        for look in looks:
            living[look.pid] = look
            total = self._totals.setdefault((look.app, look.version), _Total())
            last = self._last.get(look.pid)
            # Smaller than before: another process got the number.
            anew = last is None or (last.app, last.version) != (look.app, look.version) or look.cpu_seconds < last.cpu_seconds
            jobs, batches, cpu_seconds = (
                (0, 0, 0.0) if anew or last is None else (last.gauged.jobs, last.gauged.batches, last.cpu_seconds)
            )
            total.jobs += max(0, look.gauged.jobs - jobs)
            total.batches += max(0, look.gauged.batches - batches)
            total.cpu_seconds += look.cpu_seconds - cpu_seconds
            total.processes += 1
            total.in_flight += look.gauged.here
            total.memory_bytes += look.memory_bytes
            total.seen_at = now
        self._last = living
        for key in [key for key, total in self._totals.items() if now - total.seen_at > FORGET_SECONDS]:
            del self._totals[key]

    def samples(self) -> Iterator[Sample]:
        for (app, version), total in self._totals.items():
            whose = {APP: app, VERSION: version}
            yield Sample(ACTOR_JOBS, total.jobs, whose)
            yield Sample(ACTOR_BATCHES, total.batches, whose)
            yield Sample(ACTOR_CPU, total.cpu_seconds, whose)
            yield Sample(ACTOR_PROCESSES, total.processes, whose)
            yield Sample(ACTOR_IN_FLIGHT, total.in_flight, whose)
            yield Sample(ACTOR_MEMORY, total.memory_bytes, whose)


def look_at_actors(pod_dir: Path) -> list[ActorLook]:
    """The actors that live in a pod now; one that ends meanwhile is left out."""
    looks = []
    for actor in read_pod_actors(pod_dir):
        gauged = read_gauge(str(pod_dir / f"actor-{actor.pid}{GAUGE_SUFFIX}"))
        try:
            process = psutil.Process(actor.pid)
            times, memory_bytes = process.cpu_times(), process.memory_info().rss
        except psutil.Error:
            continue
        looks.append(ActorLook(actor.pid, actor.app, actor.version, gauged or Gauged(0), times.user + times.system, memory_bytes))
    return looks
