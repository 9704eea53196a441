"""The facts that weights are made of, one column for each fact and one row for each node; what is not known is NaN inside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from operator import attrgetter
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rayline.reports import NodeLoad

Floats: TypeAlias = NDArray[np.float64]

UNKNOWN: Final = math.nan
FLAP_MEMORY_SECONDS: Final = 300.0
MAX_DEPARTED: Final = 10_000
SAMPLES_AT_ONCE: Final = 4_096
# A little out of 0 to 1 is how counters round; what is far off is not known.
LOWEST_TOLD: Final = -0.01
HIGHEST_TOLD: Final = 1.5
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


# Bounds outside of which a measure is not known; NaN is outside, too.
_MEASURES: Final = (
    (Column.CORES, math.ulp(0.0), math.inf),
    (Column.HOST_CPU, LOWEST_TOLD, HIGHEST_TOLD),
    (Column.OWN_CPU, 0.0, math.inf),
    (Column.HOST_MEMORY, LOWEST_TOLD, HIGHEST_TOLD),
    (Column.THROTTLED, LOWEST_TOLD, HIGHEST_TOLD),
    (Column.MEMORY_PRESSURE, LOWEST_TOLD, HIGHEST_TOLD),
    (Column.IO_PRESSURE, LOWEST_TOLD, HIGHEST_TOLD),
    (Column.DISK_FREE, LOWEST_TOLD, HIGHEST_TOLD),
    (Column.CLOCK_SKEW_MS, -math.inf, math.inf),
    (Column.JOBS_IN_FLIGHT, 0.0, math.inf),
)
_MEASURES_OF: Final = attrgetter(*(column.name.lower() for column, _, _ in _MEASURES))


class Reported(Protocol):
    """What a node reported of itself, be it one report or what was merged of many."""

    @property
    def cpus(self) -> float | None: ...

    @property
    def load(self) -> NodeLoad | None: ...


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
        self._told: tuple[str, ...] | None = ()  # the same as a tuple; None: not since somebody came or went
        self._data: Floats = np.full((len(Column), _FIRST_CAPACITY), UNKNOWN)
        self._samples: dict[int, tuple[float | None, NodeLoad | None, float]] = {}  # by row, not in the columns yet
        self._departed: dict[str, tuple[float, float]] = {}  # when it left, flaps until then

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def counts_cards(self) -> bool:
        return self._coefficients is not None

    @property
    def keys(self) -> tuple[str, ...]:
        """In the order of rows; the very same tuple until somebody comes or goes."""
        if self._told is None:
            self._told = tuple(self._keys)
        return self._told

    def row(self, key: str) -> int:
        """Raises KeyError for a node that is not there."""
        return self._rows[key]

    def column(self, column: Column) -> Floats:
        """A live view of one column: writing to it changes the fleet."""
        if self._samples:
            self._take_samples()
        return self._data[column, : len(self._keys)]

    def join(self, key: str, now: float) -> None:
        row = len(self._keys)
        if row == self._data.shape[1]:
            self._data = np.concatenate([self._data, np.full_like(self._data, UNKNOWN)], axis=1)
        self._rows[key] = row
        self._keys.append(key)
        self._told = None
        self._data[:, row] = UNKNOWN
        self._data[Column.JOINED_AT, row] = now
        left_at, flaps = self._departed.pop(key, (-math.inf, 0.0))
        away = now - left_at
        self._data[Column.FLAPS, row] = (flaps + 1.0) * 0.5 ** (away / FLAP_MEMORY_SECONDS) if away < math.inf else 0.0

    def leave(self, key: str, now: float) -> None:
        """Forget a node, but not that it left. Raises KeyError when it is not there."""
        if self._samples:
            self._take_samples()
        row = self._rows.pop(key)
        stayed = now - self._data[Column.JOINED_AT, row]
        flaps = float(self._data[Column.FLAPS, row]) * 0.5 ** (stayed / FLAP_MEMORY_SECONDS)
        if len(self._departed) >= MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]
        self._departed[key] = (now, flaps)
        self._told = None
        last = self._keys.pop()
        if last != key:
            self._keys[row] = last
            self._rows[last] = row
            self._data[:, row] = self._data[:, len(self._keys)]

    def observe(self, key: str, reported: Reported, heard: float) -> None:
        """Take over what is reported of the node; `heard` is when its sample was taken. Facts out of range are unknown.

        Raises KeyError for a node that is not there.
        """
        row, load = self._rows[key], reported.load
        if load is None and row in self._samples:
            _, load, heard = self._samples[row]
        self._samples[row] = reported.cpus, load, heard
        if len(self._samples) >= SAMPLES_AT_ONCE:
            self._take_samples()

    def _take_samples(self) -> None:
        """Bring what was observed lately into the columns, of many nodes at once."""
        samples, self._samples = self._samples, {}
        cpus = np.array([cpus for cpus, _, _ in samples.values()], np.float64)
        self._data[Column.CPUS, list(samples)] = np.where(cpus > 0, cpus, UNKNOWN)
        sampled = [(row, load, heard) for row, (_, load, heard) in samples.items() if load is not None]
        if not sampled:
            return
        rows, loads, heards = zip(*sampled, strict=True)
        at = np.array(rows)
        self._data[Column.SAMPLED_AT, at] = heards
        for (column, lowest, highest), values in zip(_MEASURES, zip(*map(_MEASURES_OF, loads), strict=True), strict=True):
            facts = np.array(values, np.float64)
            known = np.where((facts >= lowest) & (facts <= highest), facts, UNKNOWN)
            self._data[column, at] = np.clip(known, 0.0, 1.0) if highest == HIGHEST_TOLD else known
        self._data[Column.CARDS : Column.CARDS_BUSY + 1, at] = UNKNOWN
        if self._coefficients is not None:
            for row, load in zip(rows, loads, strict=True):
                if load.cards:
                    self._data[Column.CARDS : Column.CARDS_BUSY + 1, row] = _cards(load, self._coefficients)


def _cards(load: NodeLoad, coefficients: Mapping[str, float]) -> tuple[float, float]:
    """The sum of the cards' coefficients, and their mean utilisation."""
    known = [card.utilisation for card in load.cards if card.utilisation is not None]
    busy = sum(known) / len(known) if known else UNKNOWN
    within = LOWEST_TOLD <= busy <= HIGHEST_TOLD
    return sum(coefficients.get(card.kind, 1.0) for card in load.cards), min(1.0, max(0.0, busy)) if within else UNKNOWN


def known_or(values: Floats, default: Any) -> Floats:
    """`values`, with `default` (a number or a column) where they are unknown."""
    return np.where(np.isnan(values), default, values)


def mean_known(values: Floats, default: float) -> float:
    """The mean of what is known, or `default` where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else default
