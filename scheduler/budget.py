"""The one budget that retries and hedges draw on, counted in jobs. Pure; time comes in as an argument.

As Finagle's `RetryBudget` and Envoy's retry budgets: each first dispatch deposits a share of a job, deposits fade, and a small
reserve that refills by itself lets a quiet app retry at once. Every dispatch of a job that an actor may have begun before draws
one job from it, whatever the cause (its node left, its worker died, it raised, it is late): to the nodes all of them are extra
load. What an actor turned away, or never got, was no load: it is handed back.
"""

from __future__ import annotations

import math
from typing import Final

EXTRA_SHARE: Final = 0.2
# Deposits fade with this time constant: at a steady rate the budget holds two seconds' worth of jobs.
FADE_SECONDS: Final = 10.0
RESERVE_JOBS: Final = 256
RESERVE_REFILL_SECONDS: Final = 10.0


class RetryBudget:
    """Owns the balance. Does not own what waits for it.

    Life: `deposit` for each first dispatch, `spend` before each further one (False: wait, or do without), `hand_back` for what
    was turned away. Within `seconds` no more than `extra_share` x first dispatches + `reserve_jobs` x (1 + seconds /
    `RESERVE_REFILL_SECONDS`) jobs are spent, whatever the order.
    """

    def __init__(self, *, now: float, reserve_jobs: int = RESERVE_JOBS) -> None:
        self._reserve_jobs = reserve_jobs
        self._extra_share = EXTRA_SHARE
        self._deposits = 0.0
        self._reserve = float(reserve_jobs)
        self._at = now

    @property
    def reserve_jobs(self) -> int:
        """What the budget refills to by itself."""
        return self._reserve_jobs

    def tune(self, *, extra_share: float | None = None, reserve_jobs: int | None = None) -> None:
        """What each first dispatch deposits from now on (0 to 1 of a job), and how large the reserve is (at least 1 job)."""
        if extra_share is not None:
            self._extra_share = extra_share
        if reserve_jobs is not None:
            self._reserve_jobs = reserve_jobs
            self._reserve = min(self._reserve, float(reserve_jobs))

    def available(self, now: float) -> float:
        """Jobs that may be spent at `now` (monotonic seconds)."""
        self._pass_time(now)
        return self._deposits + self._reserve

    def deposit(self, jobs: int, now: float) -> None:
        """So many jobs were dispatched for the first time."""
        self._pass_time(now)
        self._deposits += self._extra_share * jobs

    def affords(self, jobs: int, now: float) -> bool:
        """Whether `spend` would pay. A batch that is larger than the reserve must not wait for ever: a full reserve pays it."""
        return self.available(now) >= min(jobs, self._reserve_jobs)

    def spend(self, jobs: int, now: float) -> bool:
        """Pay for dispatching so many jobs once more; False, and nothing is paid, when it is not affordable."""
        if not self.affords(jobs, now):
            return False
        from_deposits = min(self._deposits, jobs)
        self._deposits -= from_deposits
        # What is left of a batch larger than all there is stays as a debt, which the reserve pays off first.
        self._reserve -= jobs - from_deposits
        return True

    def hand_back(self, jobs: int, now: float, *, paid: bool) -> None:
        """A dispatch was no load. `paid`: it was spent for; otherwise it was a first dispatch, whose deposit is undone."""
        self._pass_time(now)
        self._deposits += jobs if paid else -self._extra_share * jobs
        if self._deposits < 0:
            # It was spent meanwhile.
            self._reserve += self._deposits
            self._deposits = 0.0

    def _pass_time(self, now: float) -> None:
        elapsed = now - self._at
        if elapsed <= 0:
            return
        self._at = now
        self._deposits *= math.exp(-elapsed / FADE_SECONDS)
        self._reserve = min(float(self._reserve_jobs), self._reserve + elapsed * self._reserve_jobs / RESERVE_REFILL_SECONDS)
