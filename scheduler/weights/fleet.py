"""The facts that weights are made of, one column for each fact and one row for each node; what is not known is NaN inside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rayline.reports import NodeLoad, NodeReport

Floats: TypeAlias = NDArray[np.float64]

UNKNOWN: Final = math.nan
FLAP_MEMORY_SECONDS: Final = 300.0
MAX_DEPARTED: Final = 10_000
_FIRST_CAPACITY: Final = 64


class Column(IntEnum):
    """What is kept of each node. Shares are 0 to 1, times monotonic seconds; names as in `rayline.reports.NodeLoad`."""

    # From its reports.
    CPUS = 0
    SAMPLED_AT = 1
    CORES = 2
    HOST_CPU = 3
    OWN_CPU = 4
    HOST_MEMORY = 5
    THROTTLED = 6
    MEMORY_PRESSURE = 7
    IO_PRESSURE = 8
    DISK_FREE = 9
    CLOCK_SKEW_MS = 10
    JOBS_IN_FLIGHT = 11
    CARDS = 12  # the sum of the coefficients of its cards
    CARDS_BUSY = 13  # their mean utilisation
    # From the lane itself.
    LOG_LATENCY = 14  # mean of ln(a batch's seconds over what is usual for its size)
    LATENCY_ERROR = 15  # the standard error of that mean
    JOINED_AT = 16
    FLAPS = 17  # how often it left and came back, fading
    # What a policy remembers from one update to the next.
    HEALTH = 18
    SPEED = 19
    ROOM = 20


_REPORTED: Final = slice(Column.SAMPLED_AT, Column.CARDS_BUSY + 1)


class Fleet:
    """Owns the facts of the nodes that batches may go to, and how often each left and came back. Does not own what follows.

    Life of a row: `join` → `observe` with each new report → `leave`. Rows are dense: `keys[i]` is row `i` until the
    next `leave`.
    """

    def __init__(self, *, cards: Mapping[str, float] | None = None) -> None:
        """`cards`: coefficients by kind, where the app works on cards; None where it works on CPUs."""
        self._coefficients = cards
        self._rows: dict[str, int] = {}
        self._keys: list[str] = []
        self._data: Floats = np.full((len(Column), _FIRST_CAPACITY), UNKNOWN)
        self._departed: dict[str, tuple[float, float]] = {}  # when it left, flaps until then

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def counts_cards(self) -> bool:
        return self._coefficients is not None

    @property
    def keys(self) -> list[str]:
        """In the order of rows; not to be changed."""
        return self._keys

    def row(self, key: str) -> int:
        """Raises KeyError for a node that is not there."""
        return self._rows[key]

    def column(self, column: Column) -> Floats:
        """A live view of one column: writing to it changes the fleet."""
        return self._data[column, : len(self._keys)]

    def join(self, key: str, now: float) -> None:
        row = len(self._keys)
        if row == self._data.shape[1]:
            self._data = np.concatenate([self._data, np.full_like(self._data, UNKNOWN)], axis=1)
        self._rows[key] = row
        self._keys.append(key)
        self._data[:, row] = UNKNOWN
        self._data[Column.JOINED_AT, row] = now
        left_at, flaps = self._departed.pop(key, (-math.inf, 0.0))
        away = now - left_at
        self._data[Column.FLAPS, row] = (flaps + 1.0) * 0.5 ** (away / FLAP_MEMORY_SECONDS) if away < math.inf else 0.0

    def leave(self, key: str, now: float) -> None:
        """Forget a node, but not that it left. Raises KeyError when it is not there."""
        row = self._rows.pop(key)
        stayed = now - self._data[Column.JOINED_AT, row]
        flaps = float(self._data[Column.FLAPS, row]) * 0.5 ** (stayed / FLAP_MEMORY_SECONDS)
        if len(self._departed) >= MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]
        self._departed[key] = (now, flaps)
        last = self._keys.pop()
        if last != key:
            self._keys[row] = last
            self._rows[last] = row
            self._data[:, row] = self._data[:, len(self._keys)]

    def observe(self, key: str, report: NodeReport, heard: float) -> None:
        """Take over what a report says of the node; `heard` is when its sample was taken. Facts out of range are unknown."""
        row = self._rows[key]
        self._data[Column.CPUS, row] = UNKNOWN if report.cpus is None or not report.cpus > 0 else report.cpus
        if report.load is not None:
            self._data[_REPORTED, row] = self._sample(report.load, heard)

    def _sample(self, load: NodeLoad, heard: float) -> tuple[float, ...]:
        cards, busy = UNKNOWN, UNKNOWN
        if load.cards and self._coefficients is not None:
            cards = sum(self._coefficients.get(card.kind, 1.0) for card in load.cards)
            known = [card.utilisation for card in load.cards if card.utilisation is not None]
            busy = _share(sum(known) / len(known)) if known else UNKNOWN
        cores = load.cores if load.cores is not None and load.cores > 0 else UNKNOWN
        return (
            heard,
            cores,
            _share(load.host_cpu),
            UNKNOWN if load.own_cpu is None or load.own_cpu < 0 else load.own_cpu,
            _share(load.host_memory),
            _share(load.throttled),
            _share(load.memory_pressure),
            _share(load.io_pressure),
            _share(load.disk_free),
            UNKNOWN if load.clock_skew_ms is None else load.clock_skew_ms,
            UNKNOWN if load.jobs_in_flight is None or load.jobs_in_flight < 0 else float(load.jobs_in_flight),
            cards,
            busy,
        )


def known_or(values: Floats, default: Any) -> Floats:
    """`values`, with `default` (a number or a column) where they are unknown."""
    return np.where(np.isnan(values), default, values)


def mean_known(values: Floats, default: float) -> float:
    """The mean of what is known, or `default` where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else default


def _share(value: float | None) -> float:
    """A little over 1 is how counters round; what is far off is not known."""
    if value is None or not -0.01 <= value <= 1.5:
        return UNKNOWN
    return min(1.0, max(0.0, value))
