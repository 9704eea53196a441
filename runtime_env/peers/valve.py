"""Keeps libtorrent to a rate at each moment, not in the mean alone: what rate it has to be told for that, from what came lately.

libtorrent lets a node that had to wait (for pieces that others have not got yet, say) catch up on three seconds of its limit.
What it may catch up on is three seconds of what it was told *last*: so a node that does not use its limit is told less, and the
whole as soon as something waits for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

# The time over which the limit holds; what nodes tell as their rate is over the same (`limits.METER_SECONDS`).
WINDOW_SECONDS: Final = 2.0
# What may be caught up on: enough for the time until a look sees that the limit is used again.
SAVED_SECONDS: Final = 0.3
_LIBTORRENT_SAVES_SECONDS: Final = 3.0
# What is told holds until the look after next, where looks are not late.
_AHEAD_SECONDS: Final = 0.2
# The least that can be told: 0 would be no limit.
_CLOSED: Final = 1024


class Valve:
    """Owns what came in the last WINDOW_SECONDS. Pure: counts that only grow, and times, come in as arguments."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, limit: int, moved: int, now: float, *, waiting: bool) -> int:
        """Bytes per second that libtorrent is to be told while `limit` shall hold; `moved` bytes came in since the start,
        `waiting` is whether anything waits for the limit at this moment."""
        late = now - self._seen[-1][0] if self._seen else 0.0
        ahead = min(max(_AHEAD_SECONDS, 2 * late), WINDOW_SECONDS / 2)
        self._seen.append((now, moved))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()
        if not waiting:
            return max(_CLOSED, int(limit * SAVED_SECONDS / _LIBTORRENT_SAVES_SECONDS))
        room = limit * WINDOW_SECONDS - self._since(now - WINDOW_SECONDS + ahead)
        return max(_CLOSED, min(limit, int(room / ahead)))

    def _since(self, then: float) -> int:
        """Bytes that came since the last look that was not after `then`."""
        before = self._seen[0][1]
        for at, moved in self._seen:
            if at > then:
                break
            before = moved
        return self._seen[-1][1] - before
