"""How long to wait before what failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from rayline.clusters import Backoff, ProcessFact


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The first attempt after a failure comes at once, the next ones wait `first_ms`, twice as long each time, at most `cap_ms`.

    What ran for `healthy_ms` starts anew; what left in order after a notice did not fail at all.
    """

    first_ms: int = 500
    cap_ms: int = 20_000
    healthy_ms: int = 20_000

    def after(self, backoff: Backoff, end: ProcessFact, now_ms: int) -> Backoff:
        """The back-off after an end."""
        if end.noticed:
            return Backoff(reason=end.reason)
        failures = 0 if end.ran_ms >= self.healthy_ms else backoff.failures
        delay = 0 if failures == 0 else min(self.cap_ms, self.first_ms * 2 ** min(failures - 1, 30))
        return Backoff(failures=failures + 1, not_before_ms=now_ms + delay, reason=end.reason)

    def due_ms(self, backoff: Backoff, now_ms: int) -> int | None:
        """When to try again (epoch ms); None: now. A clock that was set back does not make anything wait beyond the cap."""
        if backoff.not_before_ms <= now_ms or backoff.not_before_ms > now_ms + self.cap_ms:
            return None
        return backoff.not_before_ms
