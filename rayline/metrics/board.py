"""What a process counts, gathered into one picture that other threads may read at any time. Pure; time comes in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from rayline.metrics.declared import ACTIVITY, ACTIVITY_AGE, STALL, STALLED, SUBJECT, Metric, Sample
from rayline.stalls import Stall, StallKind

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`at` is when it was taken (monotonic seconds), `delay_seconds` by how much later than it should have been."""

    at: float
    delay_seconds: float = 0.0
    samples: Mapping[Metric, tuple[Sample, ...]] = field(default_factory=dict)
    stalls: tuple[Stall, ...] = ()


@dataclass(slots=True)
class _Activity:
    done_at: float
    limit_seconds: float


class MetricsBoard:
    """Owns the last snapshot, where its values come from, and since when activities have got nothing done.

    Does not own a clock, nor how values are shown. A source that raises is left out and logged once: a wrong number must never
    end a process. Life: `source`, `stalls_from`, `expect` at any time; `done` as things get done; `gather` now and then.
    """

    def __init__(self, *, now: float, common: Mapping[str, str] | None = None) -> None:
        """`common`: attributes that each sample gets."""
        self._common = dict(common or {})
        self._sources: list[Callable[[float], Iterable[Sample]]] = []
        self._stall_sources: list[Callable[[float], Iterable[Stall]]] = []
        self._broken: set[int] = set()
        self._activities: dict[str, _Activity] = {}
        self.snapshot = Snapshot(now)

    def source(self, read: Callable[[float], Iterable[Sample]]) -> None:
        """Ask this, with the time (monotonic seconds), at each `gather`."""
        self._sources.append(read)

    def stalls_from(self, read: Callable[[float], Iterable[Stall]]) -> None:
        """Ask this, too, for what makes no progress."""
        self._stall_sources.append(read)

    def expect(self, activity: str, *, limit_seconds: float, now: float) -> None:
        """This activity shall be `done` at least so often from now on."""
        self._activities[activity] = _Activity(now, limit_seconds)

    def expects(self, activity: str) -> bool:
        return activity in self._activities

    def rest(self, activity: str) -> None:
        """Nothing is expected of it for now (a keeper that stands by)."""
        self._activities.pop(activity, None)

    def done(self, activity: str, at: float) -> None:
        """It got something done at `at`; unknown ones are left alone, and so is older news."""
        known = self._activities.get(activity)
        if known is not None:
            known.done_at = max(known.done_at, at)

    def gather(self, now: float, *, delay_seconds: float = 0.0) -> Snapshot:
        """Take a new snapshot. One that comes late knows that everything else was held up as long, and blames no activity."""
        for activity in self._activities.values():
            activity.done_at += delay_seconds
        samples = [sample for source in self._sources for sample in self._ask(source, now)]
        stalls = [*self._late_activities(now)]
        for read in self._stall_sources:
            stalls += self._ask(read, now)
        samples += [
            Sample(ACTIVITY_AGE, max(0.0, now - activity.done_at), {ACTIVITY: name})
            for name, activity in self._activities.items()
        ]
        samples += [Sample(STALLED, stall.seconds, {STALL: stall.kind.value, SUBJECT: stall.subject}) for stall in stalls]
        by_metric: dict[Metric, list[Sample]] = {}
        for metric, value, attributes in samples:
            by_metric.setdefault(metric, []).append(Sample(metric, value, {**self._common, **attributes}))
        self.snapshot = Snapshot(now, delay_seconds, {metric: tuple(found) for metric, found in by_metric.items()}, tuple(stalls))
        return self.snapshot

    def common(self) -> Mapping[str, str]:
        return self._common

    def _late_activities(self, now: float) -> Iterable[Stall]:
        for name, activity in self._activities.items():
            seconds = now - activity.done_at
            if seconds > activity.limit_seconds:
                yield Stall(
                    StallKind.ACTIVITY, name, seconds, f"nothing of it got done, expected every {activity.limit_seconds:g} s"
                )

    def _ask(self, read: Callable[[float], Iterable[T]], now: float) -> list[T]:
        try:
            return list(read(now))
        except Exception:  # noqa: BLE001 - whatever it is, the jobs go on
            if id(read) not in self._broken:
                self._broken.add(id(read))
                _log.exception("a source of metrics is left out")
            return []
