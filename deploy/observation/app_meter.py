"""One app as its topics tell: what comes in, what lies there, what goes out. Pure; time comes in as an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deploy.observation.latency import WINDOWS, ResultMeter
from deploy.observation.snapshot import PartitionRow, Window
from deploy.progress import Backlog
from rayline.app_spec import AppSpec
from rayline.bus import LogRecord
from rayline.errors import FormatError
from rayline.logs import on_one_line
from rayline.results import APP_VERSION, OUTCOME, TIMING, Outcome, parse_timing

_RATE_SECONDS: Final = 10.0
_VERSION_CHARS: Final = 64
# What else a job may end with is no answer of the version that it names.
_ANSWERS: Final = frozenset({Outcome.OK.value, Outcome.ERROR.value})


@dataclass(slots=True)
class _Progress:
    end: int
    committed: int | None
    lag: int
    moved_ms: int


class AppMeter:
    """Owns what is known of one app's traffic. Does not own the readers. Life: `take_…` in any order, read at any time."""

    def __init__(self, spec: AppSpec) -> None:
        self.spec = spec
        self.results = ResultMeter()
        self.dead_letters: int | None = None
        self.dead_letters_exact = True
        self.problem: str | None = None
        self._windows: dict[int, tuple[int, Window]] = {}
        self._partitions: dict[int, _Progress] = {}
        self._ends: deque[tuple[int, int]] = deque()

    def take_result(self, record: LogRecord, now_ms: int) -> tuple[str, float | None, bool] | None:
        """One result as its headers tell: outcome, latency (milliseconds) and whether it missed its deadline; None for a record
        that is no result."""
        outcome, latency_ms, version = None, None, None
        for name, raw in record.headers:
            if name == OUTCOME:
                outcome = raw.decode("ascii", "replace")
            elif name == TIMING:
                try:
                    latency_ms = sum(parse_timing(raw.decode("ascii", "replace")).values())
                except FormatError:
                    latency_ms = None
            elif name == APP_VERSION:
                version = on_one_line(raw.decode("utf-8", "replace")[:_VERSION_CHARS])
        if outcome not in _OUTCOMES:
            return None
        late = latency_ms is not None and latency_ms > self.spec.sla_seconds * 1000
        missed = late or outcome == Outcome.DEADLINE_EXCEEDED.value
        self.results.take(
            at_ms=record.timestamp_ms,
            outcome=outcome,
            latency_ms=latency_ms,
            missed=missed,
            now_ms=now_ms,
            version=version if outcome in _ANSWERS else None,
        )
        return outcome, latency_ms, missed

    def take_offsets(self, ends: Mapping[int, int], starts: Mapping[int, int], now_ms: int) -> None:
        """`ends` of the requests by partition, and where the group stands (or the partition begins, for lack of a commit)."""
        self._ends.append((now_ms, sum(ends.values())))
        while len(self._ends) > 2 and self._ends[0][0] < now_ms - _RATE_SECONDS * 1000:
            self._ends.popleft()
        for gone in self._partitions.keys() - ends.keys():
            del self._partitions[gone]
        for partition, end in ends.items():
            committed = starts.get(partition)
            lag = max(0, end - (committed or 0))
            known = self._partitions.get(partition)
            moved = known is None or known.lag == 0 or lag == 0 or known.committed != committed
            self._partitions[partition] = _Progress(end, committed, lag, now_ms if known is None or moved else known.moved_ms)

    def lose_offsets(self, problem: str) -> None:
        """They cannot be read: what they were is no longer told."""
        self.problem = problem
        self._partitions.clear()
        self._ends.clear()

    @property
    def lag(self) -> int | None:
        return sum(one.lag for one in self._partitions.values()) if self._partitions else None

    @property
    def rate_in(self) -> float | None:
        """Jobs per second over the last seconds; None before two looks."""
        if len(self._ends) < 2 or self._ends[-1][0] <= self._ends[0][0]:
            return None
        (first_ms, first), (last_ms, last) = self._ends[0], self._ends[-1]
        return max(0, last - first) * 1000 / (last_ms - first_ms)

    def partitions(self, now_ms: int) -> tuple[PartitionRow, ...]:
        return tuple(
            PartitionRow(
                number,
                one.end,
                one.committed,
                one.lag,
                round(max(0, now_ms - one.moved_ms) / 1000, 1) if one.lag else 0.0,
            )
            for number, one in sorted(self._partitions.items())
        )

    def windows(self, now_ms: int) -> dict[int, Window]:
        """Computed once a second, the longest one every ten: what comes late is in the next."""
        for seconds in WINDOWS:
            turn = now_ms // 1000 // max(1, seconds // 90)
            if self._windows.get(seconds, (None,))[0] != turn:
                self._windows[seconds] = (turn, self.results.window(seconds, now_ms))
        return {seconds: window for seconds, (_, window) in self._windows.items()}

    def backlogs(self, answering_ms: int) -> list[Backlog]:
        """What waits; before `answering_ms` the broker did not answer, so that nothing could be seen to move."""
        return [Backlog(number, one.lag, max(one.moved_ms, answering_ms)) for number, one in sorted(self._partitions.items())]


_OUTCOMES: Final = frozenset(outcome.value for outcome in Outcome)
