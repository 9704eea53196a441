"""A histogram that costs the hot path nothing: whole transactions are sorted into its buckets at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Below so many values a loop is cheaper than an array.
_FEW: Final = 16


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """`counts` has one more entry than `bounds`: the last counts what is above all of them. A bound belongs to its bucket."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The value below which this share (0 to 1) of all lies, interpolated inside its bucket; None while it is empty."""
        rank, below = share * self.count, 0
        for index, count in enumerate(self.counts):
            if count and below + count >= rank:
                low = self.bounds[index - 1] if index else 0.0
                high = self.bounds[min(index, len(self.bounds) - 1)]
                return low + (high - low) * max(0.0, rank - below) / count
            below += count
        return None


class Histogram:
    """Owns the counts since the start of the process. Not safe for several threads: others read its snapshots."""

    __slots__ = ("_bounds", "_counts", "_edges", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._edges: NDArray[np.float64] | None = None
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """One value, or the same one several times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def add_many(self, values: Sequence[float]) -> None:
        if len(values) < _FEW:
            for value in values:
                self.add(value)
            return
        # Imported only where much is counted: an agent's start is measured in fractions of a second.
        import numpy as np

        if self._edges is None:
            self._edges = np.array(self._bounds)
        array = np.asarray(values, dtype=np.float64)
        found = np.bincount(np.searchsorted(self._edges, array, side="left"), minlength=len(self._counts))
        self._counts = [old + new for old, new in zip(self._counts, found.tolist(), strict=True)]
        self._total += float(array.sum())

    def snapshot(self) -> HistogramSnapshot:
        return HistogramSnapshot(self._bounds, tuple(self._counts), self._total)
