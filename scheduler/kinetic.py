"""The highest of many straight lines, as time moves forward: a kinetic tournament tree.

Each contestant is a line ``slope * time - debt``. A tournament over them has a winner at every inner node, and each of those
wins carries a certificate: the first later time at which the loser overtakes. While no certificate has run out nothing needs
to be compared, so that moving time by one step touches only the few matches whose outcome changes. See Basch, Guibas and
Hershberger, "Data structures for mobile data" (SODA 1997).

All numbers are integers, so that ties are ties and nothing drifts however long time runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_NOBODY = -1
_NEVER = 1 << 256


@dataclass(frozen=True, slots=True)
class TournamentStatistics:
    """Counters for benchmarks and operators."""

    lines: int
    matches: int  # comparisons made since the start
    rebuilds: int


class KineticTournament:
    """Owns the lines and who leads. Does not own what a line stands for.

    Life cycle: ``add`` gives a slot; ``change`` moves the slot's line; ``discard`` frees the slot; ``leader(time)`` may be asked
    for any time that is not before the last one asked for; ``restart`` takes other lines, and time begins anew. Changes are
    repaired at the next ``leader``: a few by walking their paths to the root, O(log n) each, many at once by one O(n) rebuild.

    Of lines that are level, the one with the lower ``rank`` leads; ranks are distinct.
    """

    def __init__(self) -> None:
        self._matches = 0
        self._rebuilds = 0
        self.restart([], [], [])

    def restart(self, slopes: Sequence[int], debts: Sequence[int], ranks: Sequence[int]) -> None:
        """These lines and no others, in slots 0, 1, 2…; the counters go on."""
        self._lines = len(slopes)
        self._capacity = capacity = 1 << max(0, self._lines - 1).bit_length()
        empty = capacity - self._lines
        self._slope = [*slopes, *[0] * empty]
        self._debt = [*debts, *[0] * empty]
        self._rank = [*ranks, *[_NOBODY] * empty]
        self._free = list(range(capacity - 1, self._lines - 1, -1))
        # Heap-shaped: node i has children 2i and 2i+1, slot s is leaf capacity+s, the root is 1.
        self._winner = [*[_NOBODY] * capacity, *range(self._lines), *[_NOBODY] * empty]
        self._expires = [_NEVER] * (2 * capacity)  # the earliest certificate within the subtree
        self._changed = set(range(capacity))  # every inner node is new

    def add(self, *, slope: int, debt: int, rank: int) -> int:
        """Enter a line; returns its slot."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._slope[slot] = slope
        self._winner[self._capacity + slot] = slot
        self._lines += 1
        self.change(slot, debt, rank)
        return slot

    def change(self, slot: int, debt: int, rank: int) -> None:
        """Move the line of a slot up or down, and say who stands for it in a tie."""
        self._debt[slot] = debt
        self._rank[slot] = rank
        self._changed.add(slot)

    def discard(self, slot: int) -> None:
        """Take a line out and free its slot."""
        self._winner[self._capacity + slot] = _NOBODY
        self._free.append(slot)
        self._lines -= 1
        self._changed.add(slot)

    def leader(self, time: int) -> int | None:
        """The slot of the highest line at ``time``, or None without lines."""
        changed = self._changed
        if changed:
            if len(changed) * self._capacity.bit_length() > self._capacity:
                self._rebuilds += 1
                for node in range(self._capacity - 1, 0, -1):
                    self._play(node, 1, time)
            else:
                for slot in changed:
                    self._play((self._capacity + slot) >> 1, self._capacity, time)
            changed.clear()
        if self._expires[1] <= time:
            self._advance(1, time)
        slot = self._winner[1]
        return None if slot == _NOBODY else slot

    def statistics(self) -> TournamentStatistics:
        """A frozen snapshot of the counters."""
        return TournamentStatistics(lines=self._lines, matches=self._matches, rebuilds=self._rebuilds)

    def _advance(self, node: int, time: int) -> None:
        """Replay the matches below ``node`` whose certificates have run out, children first."""
        if node >= self._capacity:
            return
        expires = self._expires
        left = node << 1
        if expires[left] <= time:
            self._advance(left, time)
        if expires[left + 1] <= time:
            self._advance(left + 1, time)
        self._play(node, 1, time)

    def _play(self, node: int, matches: int, time: int) -> None:
        """Decide the match at ``node`` at ``time`` and note when its outcome will change; then those above it, up to the root or
        ``matches`` in all. One loop, since this is most of what a pick costs."""
        winner, expires, slope, debt, rank = self._winner, self._expires, self._slope, self._debt, self._rank
        played = 0
        while node and played < matches:
            played += 1
            left = node << 1
            first, second = winner[left], winner[left + 1]
            until, other = expires[left], expires[left + 1]
            if other < until:
                until = other
            if first == _NOBODY:
                winner[node] = second
            elif second == _NOBODY:
                winner[node] = first
            else:
                slope_gain = slope[second] - slope[first]
                debt_gap = debt[second] - debt[first]
                ahead = slope_gain * time - debt_gap  # how far the second stands above the first
                if ahead > 0 or (ahead == 0 and rank[second] < rank[first]):
                    first, second = second, first
                    slope_gain, debt_gap = -slope_gain, -debt_gap
                winner[node] = first
                if slope_gain > 0:
                    # The loser climbs faster: level at debt_gap / slope_gain, which is enough only for the lower rank.
                    lower = rank[second] < rank[first]
                    overtakes = -(-debt_gap // slope_gain) if lower else debt_gap // slope_gain + 1
                    if overtakes < until:
                        until = overtakes
            expires[node] = until
            node >>= 1
        self._matches += played

    def _grow(self) -> None:
        old_capacity = self._capacity
        leaves = self._winner[old_capacity:]
        self._capacity = capacity = old_capacity * 2
        self._slope += [0] * old_capacity
        self._debt += [0] * old_capacity
        self._rank += [_NOBODY] * old_capacity
        self._free.extend(range(capacity - 1, old_capacity - 1, -1))
        self._winner = [_NOBODY] * capacity + leaves + [_NOBODY] * old_capacity
        self._expires = [_NEVER] * (2 * capacity)
        self._changed.update(range(capacity))  # every inner node is new
