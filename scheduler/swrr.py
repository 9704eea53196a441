"""Smooth weighted round robin, as nginx and the WeChat article define it, at O(log n) a pick.

The plain algorithm, for each pick: every available node's route weight grows by its weight; the node with the largest route
weight is chosen, the first in order among equals; the chosen one's falls by the sum of all available weights. That is O(n).

Here a node's route weight is never stored but follows from ``weight * turn - debt``, where ``turn`` counts picks and ``debt``
changes only for the node that was chosen. Among nodes of equal weight the one that owes least leads at any turn: a heap. Among
groups of different weights the leaders are straight lines over turns: a kinetic tournament. The sequence of picks is identical
to that of the plain algorithm, ties included.

What the sources leave open is decided thus:

- Weights are rounded to multiples of ``WEIGHT_RESOLUTION`` and all sums are integers: ties are exact, nothing drifts.
- Route weights survive changes of weight, unknown weights and blocked spells; a node that is out neither gains nor counts.
- A newcomer starts at the mean route weight of those present. That is nginx's 0 unless nodes have left; then it keeps
  the debts that left with them from favouring the old over the new for ever.
"""

import heapq
from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from scheduler.kinetic import KineticTournament

NodeKey = TypeVar("NodeKey", bound=Hashable)

_UNITS: Final = 1 << 20
WEIGHT_RESOLUTION: Final = 1 / _UNITS
_MAX_WEIGHT: Final = float(1 << 27)
# Sums of units, and products of one weight with turns, stay below this, so that 64 bits hold them.
_UNITS_HELD: Final = 1 << 61
_STALE_ALLOWANCE: Final = 16
# A heap's entry is one integer, debt above row: compared faster than a tuple, and nothing for the garbage collector.
_ROW_BITS: Final = 40
_ROW_MASK: Final = (1 << _ROW_BITS) - 1
_UNKNOWN: Final = 0
_OUTSIDE: Final = -1
_HOLES_ALLOWANCE: Final = 64


@dataclass(frozen=True, slots=True)
class SwrrStatistics:
    """A snapshot for operators and benchmarks."""

    nodes: int
    available: int  # known weight and not blocked
    blocked: int
    unknown: int  # weight not known
    distinct_weights: int  # among the available
    total_weight: float  # of the available
    picks: int
    matches: int  # comparisons between groups since the start


@dataclass(slots=True)
class _Group:
    """Available nodes of one weight. The heap may hold entries of nodes that have moved on; its top never is one."""

    weight: int
    heap: list[int]  # debt and row
    slot: int
    size: int = 0


class SmoothWeightedRoundRobin(Generic[NodeKey]):
    """Chooses nodes in proportion to their weights, as evenly spread as can be.

    Owns route weights and the order of nodes (that of first mention). Does not own where weights come from, what is in flight,
    or what to do when nobody is available. Pure: no clock, no I/O, not thread-safe.

    Life cycle of a node: ``set_weight`` makes it known (None: it waits outside until its weight is known); ``block`` takes it out
    for a while and ``unblock`` brings it back with the route weight it left with; ``remove`` forgets it.

    A node is a row in a few arrays, so that a change of all weights is a handful of passes over them.
    """

    def __init__(self) -> None:
        self._rows: dict[NodeKey, int] = {}
        self._keys: list[NodeKey | None] = []  # by row, None where a node was removed
        self._weight = array("q")  # units
        # In the rotation: route weight = weight * turn - debt. Out of it: route weight = -debt.
        self._debt = array("q")
        self._slot = array("q")  # that of the node's group; _OUTSIDE: out of the rotation
        self._blocked = bytearray()
        # Those of the last `reweigh`, and their rows; None, once one of them may be gone.
        self._mentioned: tuple[NodeKey, ...] | None = None
        self._rows_mentioned: NDArray[np.int64] = np.empty(0, np.int64)
        self._groups: dict[int, _Group] = {}  # by weight
        self._group_of_slot: dict[int, _Group] = {}
        self._tournament = KineticTournament()
        self._turn = 0  # since the last `_rest`
        self._rest_at = _UNITS_HELD  # a later turn times the largest weight would be too much
        self._picks_before = 0
        self._total = 0  # units, of the nodes in the rotation
        self._route_weight_sum = 0  # of all nodes: a pick leaves it unchanged
        self._available = 0

    def __contains__(self, key: NodeKey) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def available(self) -> int:
        """Nodes with a known weight that are not blocked."""
        return self._available

    def set_weight(self, key: NodeKey, weight: float | None) -> None:
        """Add a node or change its weight; None means not known: it is not chosen until it is.

        Raises ValueError for a weight that is not positive, finite and below 2^27: "no work" is ``block`` or ``remove``, never 0.
        """
        units = _UNKNOWN if weight is None else _to_units(weight)
        row = self._rows.get(key)
        if row is None:
            row = self._join(key)
        if units == self._weight[row]:
            return
        self._leave_rotation(row)
        self._weight[row] = units
        self._enter_rotation(row)

    def set_weights(self, keys: Sequence[NodeKey], weights: Sequence[float] | NDArray[np.float64]) -> None:
        """`set_weight` for many nodes at once: the same outcome at a fraction of the cost. Raises as that does."""
        units = _to_many_units(weights)
        known = list(map(self._rows.get, keys))
        if len(known) != len(units):
            raise ValueError(f"{len(known)} nodes and {len(units)} weights")
        if None in known:
            known = [self._join(key) if key not in self._rows else self._rows[key] for key in keys]
        self._assign(np.array(known, np.int64), units)

    def reweigh(self, keys: tuple[NodeKey, ...], weights: NDArray[np.float64]) -> None:
        """`set_weights` for those of these nodes that are not blocked; the others keep what they have.

        Cheaper where the very same `keys` come again: their rows are remembered. Raises KeyError for a node that is not there,
        and as `set_weight` does for a weight of a node that is not blocked.
        """
        if len(keys) != len(weights):
            raise ValueError(f"{len(keys)} nodes and {len(weights)} weights")
        if keys is not self._mentioned:
            self._rows_mentioned = np.fromiter(map(self._rows.__getitem__, keys), np.int64, len(keys))
            self._mentioned = keys
        rows = self._rows_mentioned
        here = np.flatnonzero(np.frombuffer(self._blocked, np.uint8)[rows] == 0)
        self._assign(rows[here], _to_many_units(weights[here]))

    def remove(self, key: NodeKey) -> None:
        """Forget a node. Raises KeyError when it is not there."""
        row = self._rows.pop(key)
        self._mentioned = None
        self._leave_rotation(row)
        self._route_weight_sum += self._debt[row]
        self._keys[row] = None
        self._weight[row] = _UNKNOWN
        if len(self._keys) > 2 * len(self._rows) + _HOLES_ALLOWANCE:
            self._close_holes()

    def block(self, key: NodeKey) -> None:
        """Take a node out until ``unblock``; blocking twice is blocking once. Raises KeyError when it is not there."""
        row = self._rows[key]
        self._blocked[row] = True
        self._leave_rotation(row)

    def unblock(self, key: NodeKey) -> None:
        """Bring a blocked node back. Raises KeyError when it is not there."""
        row = self._rows[key]
        self._blocked[row] = False
        self._enter_rotation(row)

    def pick(self) -> NodeKey | None:
        """Choose the next node, or None when no node is available. O(log n) amortised."""
        if not self._available:
            return None
        if self._turn >= self._rest_at:
            self._rest()
            self._form()
        self._turn = turn = self._turn + 1
        slot = self._tournament.leader(turn)
        if slot is None:
            raise AssertionError("available nodes and an empty tournament")
        heap = self._group_of_slot[slot].heap
        entry = heap[0]
        row = entry & _ROW_MASK
        total = self._total
        self._debt[row] += total
        heapq.heapreplace(heap, entry + (total << _ROW_BITS))
        self._settle(slot, heap)
        return self._keys[row]

    def route_weight(self, key: NodeKey) -> float:
        """The node's route weight now. Raises KeyError when it is not there."""
        row = self._rows[key]
        held = self._weight[row] * self._turn if self._slot[row] != _OUTSIDE else 0
        return (held - self._debt[row]) / _UNITS

    def statistics(self) -> SwrrStatistics:
        """A frozen snapshot; O(n)."""
        rows = list(self._rows.values())
        return SwrrStatistics(
            nodes=len(rows),
            available=self._available,
            blocked=sum(self._blocked[row] for row in rows),
            unknown=sum(self._weight[row] == _UNKNOWN for row in rows),
            distinct_weights=len(self._groups),
            total_weight=self._total / _UNITS,
            picks=self._picks_before + self._turn,
            matches=self._tournament.statistics().matches,
        )

    def _assign(self, rows: NDArray[np.int64], units: NDArray[np.int64]) -> None:
        if (_view(self._weight)[rows] == units).all():
            return
        self._rest()
        _view(self._weight)[rows] = units
        self._form()

    def _join(self, key: NodeKey) -> int:
        start = self._route_weight_sum // len(self._rows) if self._rows else 0
        self._rows[key] = row = len(self._keys)
        self._keys.append(key)
        self._weight.append(_UNKNOWN)
        self._debt.append(-start)
        self._slot.append(_OUTSIDE)
        self._blocked.append(False)
        self._route_weight_sum += start
        return row

    def _rest(self) -> None:
        """Bring all nodes to a halt out of the rotation, where their route weights are their debts, and count turns anew."""
        slots, weights = _view(self._slot), _view(self._weight)
        inside = np.flatnonzero(slots != _OUTSIDE)
        _view(self._debt)[inside] -= weights[inside] * self._turn
        slots[inside] = _OUTSIDE
        self._picks_before += self._turn
        self._turn = 0

    def _form(self) -> None:
        """Sort the available nodes into groups after `_rest`."""
        weights = _view(self._weight)
        rows = np.flatnonzero((weights != _UNKNOWN) & (np.frombuffer(self._blocked, np.uint8) == 0))
        units = weights[rows]
        distinct = np.unique(units)
        slots = np.searchsorted(distinct, units)
        _view(self._slot)[rows] = slots
        debts = _view(self._debt)[rows]
        by_debt = np.argsort(debts, kind="stable")
        # Sorting few distinct numbers of few bits is a count.
        order = by_debt[np.argsort(slots[by_debt].astype(np.min_scalar_type(len(distinct))), kind="stable")]
        pairs = zip(debts[order].tolist(), rows[order].tolist(), strict=True)
        entries = [debt << _ROW_BITS | row for debt, row in pairs]
        ends = np.cumsum(np.bincount(slots, minlength=len(distinct))).tolist()
        self._groups, self._group_of_slot = {}, {}
        # What is sorted is a heap.
        for slot, (weight, (start, end)) in enumerate(zip(distinct.tolist(), pairwise([0, *ends]), strict=True)):
            group = _Group(weight=weight, heap=entries[start:end], slot=slot, size=end - start)
            self._groups[weight] = self._group_of_slot[slot] = group
        tops = [group.heap[0] for group in self._groups.values()]
        self._tournament.restart(list(self._groups), [top >> _ROW_BITS for top in tops], [top & _ROW_MASK for top in tops])
        self._total = self._available = 0
        self._rest_at = _UNITS_HELD
        for group in self._groups.values():
            self._weigh_in(group.weight, group.size)

    def _weigh_in(self, weight: int, nodes: int) -> None:
        self._total += weight * nodes
        self._available += nodes
        if self._total > _UNITS_HELD:
            raise OverflowError(f"the weights of {self._available} nodes add up to {self._total / _UNITS:g}: scale them down")
        self._rest_at = min(self._rest_at, _UNITS_HELD // weight)

    def _close_holes(self) -> None:
        """Give rows anew, in the same order, without those of nodes that were removed."""
        self._rest()
        kept = [row for row, key in enumerate(self._keys) if key is not None]
        self._keys = [self._keys[row] for row in kept]
        self._rows = {key: row for row, key in enumerate(self._keys) if key is not None}
        self._weight = array("q", [self._weight[row] for row in kept])
        self._debt = array("q", [self._debt[row] for row in kept])
        self._slot = array("q", [_OUTSIDE] * len(kept))
        self._blocked = bytearray(self._blocked[row] for row in kept)
        self._form()

    def _enter_rotation(self, row: int) -> None:
        weight = self._weight[row]
        if weight == _UNKNOWN or self._blocked[row] or self._slot[row] != _OUTSIDE:
            return
        if self._turn > _UNITS_HELD // weight:
            self._rest()
            self._form()
            return
        self._weigh_in(weight, 1)
        self._debt[row] = debt = self._debt[row] + weight * self._turn
        entry = debt << _ROW_BITS | row
        group = self._groups.get(weight)
        if group is None:
            slot = self._tournament.add(slope=weight, debt=debt, rank=row)
            self._groups[weight] = self._group_of_slot[slot] = _Group(weight=weight, heap=[entry], slot=slot, size=1)
            self._slot[row] = slot
            return
        self._slot[row] = group.slot
        heapq.heappush(group.heap, entry)
        group.size += 1
        if group.heap[0] == entry:
            self._tournament.change(group.slot, debt, row)

    def _leave_rotation(self, row: int) -> None:
        slot = self._slot[row]
        if slot == _OUTSIDE:
            return
        group = self._group_of_slot[slot]
        was_top = group.heap[0] & _ROW_MASK == row
        self._slot[row] = _OUTSIDE
        self._debt[row] -= group.weight * self._turn
        group.size -= 1
        self._total -= group.weight
        self._available -= 1
        if not group.size:
            self._tournament.discard(slot)
            del self._groups[group.weight]
            del self._group_of_slot[slot]
        elif was_top:
            self._settle(slot, group.heap)
        elif len(group.heap) > 2 * group.size + _STALE_ALLOWANCE:
            group.heap = [entry for entry in set(group.heap) if self._is_current(slot, entry)]
            heapq.heapify(group.heap)

    def _is_current(self, slot: int, entry: int) -> bool:
        row = entry & _ROW_MASK
        return self._slot[row] == slot and self._debt[row] == entry >> _ROW_BITS

    def _settle(self, slot: int, heap: list[int]) -> None:
        """Drop entries of nodes that have moved on from the top, then enter the top as the group's line."""
        slots, debts = self._slot, self._debt
        while True:
            entry = heap[0]
            row, debt = entry & _ROW_MASK, entry >> _ROW_BITS
            if slots[row] == slot and debts[row] == debt:
                break
            heapq.heappop(heap)
        self._tournament.change(slot, debt, row)


def _view(values: "array[int]") -> NDArray[np.int64]:
    """The same memory as numpy sees it; to be let go before the array grows."""
    return np.frombuffer(values, np.int64)


def _to_many_units(weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    values = np.asarray(weights, dtype=np.float64)
    wrong = ~((values > 0) & (values <= _MAX_WEIGHT))
    if wrong.any():
        _to_units(float(values[wrong][0]))
    return np.maximum(1, np.rint(values * _UNITS)).astype(np.int64)


def _to_units(weight: float) -> int:
    if not 0 < weight <= _MAX_WEIGHT:
        raise ValueError(f"weight {weight!r} is not positive, finite and at most {_MAX_WEIGHT:g}: give None when it is not known")
    return max(1, round(weight * _UNITS))
