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
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from scheduler.kinetic import KineticTournament

NodeKey = TypeVar("NodeKey", bound=Hashable)

_UNITS = 1 << 20
WEIGHT_RESOLUTION = 1 / _UNITS
_MAX_WEIGHT = float(1 << 64)
_MAX_BULK_WEIGHT = float(1 << 42)  # its units still fit into 64 bits
_STALE_ALLOWANCE = 16
# A heap's entry is one integer, debt above order: compared faster than a tuple, and nothing for the garbage collector.
_ORDER_BITS = 40
_ORDER_MASK = (1 << _ORDER_BITS) - 1


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
class _Node(Generic[NodeKey]):
    key: NodeKey
    order: int
    weight: int | None = None  # units
    blocked: bool = False
    group: "_Group | None" = None  # None: out of the rotation
    # In the rotation: route weight = weight * turn - debt. Out of it: route weight = -debt.
    debt: int = 0


@dataclass(slots=True)
class _Group:
    """Available nodes of one weight. The heap may hold entries of nodes that have moved on; its top never is one."""

    weight: int
    heap: list[int]  # debt and order
    slot: int
    size: int = 0


class SmoothWeightedRoundRobin(Generic[NodeKey]):
    """Chooses nodes in proportion to their weights, as evenly spread as can be.

    Owns route weights and the order of nodes (that of first mention). Does not own where weights come from, what is in flight,
    or what to do when nobody is available. Pure: no clock, no I/O, not thread-safe.

    Life cycle of a node: ``set_weight`` makes it known (None: it waits outside until its weight is known); ``block`` takes it out
    for a while and ``unblock`` brings it back with the route weight it left with; ``remove`` forgets it.
    """

    def __init__(self) -> None:
        self._nodes: dict[NodeKey, _Node[NodeKey]] = {}
        self._by_order: dict[int, _Node[NodeKey]] = {}
        self._groups: dict[int, _Group] = {}
        self._group_of_slot: dict[int, _Group] = {}
        self._tournament = KineticTournament()
        self._turn = 0
        self._next_order = 0
        self._total = 0  # units, of the nodes in the rotation
        self._route_weight_sum = 0  # of all nodes: a pick leaves it unchanged
        self._available = 0

    def __contains__(self, key: NodeKey) -> bool:
        return key in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def available(self) -> int:
        """Nodes with a known weight that are not blocked."""
        return self._available

    def set_weight(self, key: NodeKey, weight: float | None) -> None:
        """Add a node or change its weight; None means not known: it is not chosen until it is.

        Raises ValueError for a weight that is not positive and finite: "no work" is ``block`` or ``remove``, never 0.
        """
        units = _to_units(weight)
        node = self._nodes.get(key)
        if node is None:
            node = self._join(key)
        if units == node.weight:
            return
        self._leave_rotation(node)
        node.weight = units
        self._enter_rotation(node)

    def set_weights(self, keys: Sequence[NodeKey], weights: Sequence[float] | NDArray[np.float64]) -> None:
        """`set_weight` for many nodes at once: the same outcome at a fraction of the cost. Raises as that does."""
        nodes, turn = self._nodes, self._turn
        moved = 0
        for key, units in zip(keys, _to_many_units(weights), strict=True):
            node = nodes.get(key)
            if node is None:
                node = self._join(key)
            weight = node.weight
            if units == weight:
                continue
            if not node.blocked:
                node.debt += (units if weight is None else units - weight) * turn
                moved += 1
            node.weight = units
        if moved:
            self._regroup()

    def remove(self, key: NodeKey) -> None:
        """Forget a node. Raises KeyError when it is not there."""
        node = self._nodes.pop(key)
        self._leave_rotation(node)
        self._route_weight_sum += node.debt
        del self._by_order[node.order]

    def block(self, key: NodeKey) -> None:
        """Take a node out until ``unblock``; blocking twice is blocking once. Raises KeyError when it is not there."""
        node = self._nodes[key]
        node.blocked = True
        self._leave_rotation(node)

    def unblock(self, key: NodeKey) -> None:
        """Bring a blocked node back. Raises KeyError when it is not there."""
        node = self._nodes[key]
        node.blocked = False
        self._enter_rotation(node)

    def pick(self) -> NodeKey | None:
        """Choose the next node, or None when no node is available. O(log n) amortised."""
        if not self._available:
            return None
        self._turn += 1
        slot = self._tournament.leader(self._turn)
        if slot is None:
            raise AssertionError("available nodes and an empty tournament")
        group = self._group_of_slot[slot]
        entry = group.heap[0]
        node = self._by_order[entry & _ORDER_MASK]
        node.debt += self._total
        heapq.heapreplace(group.heap, entry + (self._total << _ORDER_BITS))
        self._settle(group)
        return node.key

    def route_weight(self, key: NodeKey) -> float:
        """The node's route weight now. Raises KeyError when it is not there."""
        node = self._nodes[key]
        held = node.weight * self._turn if node.group is not None and node.weight is not None else 0
        return (held - node.debt) / _UNITS

    def statistics(self) -> SwrrStatistics:
        """A frozen snapshot; O(n)."""
        nodes = self._nodes.values()
        return SwrrStatistics(
            nodes=len(nodes),
            available=self._available,
            blocked=sum(node.blocked for node in nodes),
            unknown=sum(node.weight is None for node in nodes),
            distinct_weights=len(self._groups),
            total_weight=self._total / _UNITS,
            picks=self._turn,
            matches=self._tournament.statistics().matches,
        )

    def _join(self, key: NodeKey) -> _Node[NodeKey]:
        start = self._route_weight_sum // len(self._nodes) if self._nodes else 0
        node = _Node(key=key, order=self._next_order, debt=-start)
        self._next_order += 1
        self._nodes[key] = node
        self._by_order[node.order] = node
        self._route_weight_sum += start
        return node

    def _regroup(self) -> None:
        """Sort all available nodes into groups anew; debts and weights stand as they are."""
        groups: dict[int, _Group] = {}
        total = available = 0
        for node in self._nodes.values():
            weight = node.weight
            if weight is None or node.blocked:
                continue
            group = groups.get(weight)
            if group is None:
                group = groups[weight] = _Group(weight=weight, heap=[], slot=-1)
            group.heap.append(node.debt << _ORDER_BITS | node.order)
            node.group = group
            total += weight
            available += 1
        self._tournament.clear()
        self._group_of_slot = {}
        for weight, group in groups.items():
            heapq.heapify(group.heap)
            group.size = len(group.heap)
            entry = group.heap[0]
            group.slot = self._tournament.add(slope=weight, debt=entry >> _ORDER_BITS, rank=entry & _ORDER_MASK)
            self._group_of_slot[group.slot] = group
        self._groups, self._total, self._available = groups, total, available

    def _enter_rotation(self, node: _Node[NodeKey]) -> None:
        if node.group is not None or node.blocked or node.weight is None:
            return
        node.debt += node.weight * self._turn
        group = self._groups.get(node.weight)
        if group is None:
            slot = self._tournament.add(slope=node.weight, debt=node.debt, rank=node.order)
            group = _Group(weight=node.weight, heap=[], slot=slot)
            self._groups[node.weight] = group
            self._group_of_slot[slot] = group
        node.group = group
        entry = node.debt << _ORDER_BITS | node.order
        heapq.heappush(group.heap, entry)
        group.size += 1
        self._total += node.weight
        self._available += 1
        if group.heap[0] == entry:
            self._settle(group)

    def _leave_rotation(self, node: _Node[NodeKey]) -> None:
        group = node.group
        if group is None:
            return
        was_top = group.heap[0] == node.debt << _ORDER_BITS | node.order
        node.group = None
        node.debt -= group.weight * self._turn
        group.size -= 1
        self._total -= group.weight
        self._available -= 1
        if not group.size:
            self._tournament.discard(group.slot)
            del self._groups[group.weight]
            del self._group_of_slot[group.slot]
        elif was_top:
            self._settle(group)
        elif len(group.heap) > 2 * group.size + _STALE_ALLOWANCE:
            group.heap = [entry for entry in set(group.heap) if self._is_current(group, entry)]
            heapq.heapify(group.heap)

    def _is_current(self, group: _Group, entry: int) -> bool:
        node = self._by_order.get(entry & _ORDER_MASK)
        return node is not None and node.group is group and node.debt == entry >> _ORDER_BITS

    def _settle(self, group: _Group) -> None:
        """Drop entries of nodes that have moved on from the top, then enter the top as the group's line."""
        heap = group.heap
        entry = heap[0]
        while not self._is_current(group, entry):
            heapq.heappop(heap)
            entry = heap[0]
        self._tournament.change(group.slot, debt=entry >> _ORDER_BITS, rank=entry & _ORDER_MASK)


def _to_many_units(weights: Sequence[float] | NDArray[np.float64]) -> list[int]:
    values = np.asarray(weights, dtype=np.float64)
    if len(values) and not (values.min() > 0 and values.max() <= _MAX_BULK_WEIGHT):
        return [units for units in map(_to_units, values.tolist()) if units is not None]
    units: list[int] = np.maximum(1, np.rint(values * _UNITS)).astype(np.int64).tolist()
    return units


def _to_units(weight: float | None) -> int | None:
    if weight is None:
        return None
    if not 0 < weight <= _MAX_WEIGHT or math.isnan(weight):
        raise ValueError(f"weight {weight!r} is not positive and finite: give None when it is not known")
    return max(1, round(weight * _UNITS))
