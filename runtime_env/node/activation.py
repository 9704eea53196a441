"""How far a node is with the environments that its apps need. Pure: time and events come in as arguments.

    ABSENT → FETCHING → VERIFYING → UNPACKING → CHECKING → READY
                 └───────────┴──────────┴──────────┴→ FAILED → (back-off) → FETCHING …

A failure has a reason and a remedy, and is tried again: who makes room on a disk, or publishes a mended bundle, need not tell
any node. An environment that nobody wants any more is forgotten, except the one that its app ran from before: its actors may
still be there, and may have to be started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from rayline.enums import StrEnum

FIRST_RETRY_SECONDS: Final = 2.0
MAX_RETRY_SECONDS: Final = 300.0


class Phase(StrEnum):
    """Where one environment is on its way. FETCHING: manifest and archives come. VERIFYING: their bytes are checked.
    CHECKING: the entrypoint is imported in a process of its own. READY: actors may start from it."""

    ABSENT = "absent"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    UNPACKING = "unpacking"
    CHECKING = "checking"
    READY = "ready"
    FAILED = "failed"


_NEXT: Final = {
    Phase.FETCHING: Phase.VERIFYING,
    Phase.VERIFYING: Phase.UNPACKING,
    Phase.UNPACKING: Phase.CHECKING,
    Phase.CHECKING: Phase.READY,
}
UNDER_WAY: Final = frozenset(_NEXT)


@dataclass(frozen=True, slots=True, order=True)
class Wanted:
    """An app's version, and the bundle (`sha256:…`) that it runs from. `ahead`: only put it in place, nothing runs from it.
    `back`: the deployment keeps this node at the version before the newest, or takes it back to it."""

    app: str
    version: str
    digest: str
    ahead: bool = False
    back: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an environment is not there, and what somebody can do about it."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Activation:
    """One environment; times are monotonic seconds. `fetched_bytes` of `total_bytes` while FETCHING, once they are known;
    `failures` in a row; `retry_at` while FAILED."""

    wanted: Wanted
    phase: Phase
    since: float
    fetched_bytes: int = 0
    total_bytes: int = 0
    failures: int = 0
    failure: Failure | None = None
    retry_at: float = 0.0

    def due(self, now: float) -> bool:
        return self.phase is Phase.ABSENT or (self.phase is Phase.FAILED and now >= self.retry_at)


class Activations:
    """Owns the state of each environment of one node. Does not own threads, files, or what a step does.

    Life cycle: `want` at any time; whoever works asks `next_due`, calls `begin`, then `advance` for each step that is entered and
    at last `succeed` or `fail`. Calls about an environment that was forgotten meanwhile change nothing.
    """

    def __init__(self) -> None:
        self._all: dict[str, Activation] = {}
        self._current: dict[str, str] = {}
        self._before: dict[str, str] = {}

    def want(self, wanted: Sequence[Wanted], now: float) -> frozenset[str]:
        """Exactly these from now on, one that runs for each app; returns the digests that are not needed any more."""
        running = {one.app: one for one in wanted if not one.ahead}
        for app, digest in self._current.items():
            if app in running and running[app].digest != digest and self._all[digest].phase is Phase.READY:
                self._before[app] = digest
        self._before = {app: digest for app, digest in self._before.items() if app in running and running[app].digest != digest}
        self._current = {app: one.digest for app, one in running.items()}
        for one in wanted:
            known = self._all.get(one.digest)
            # What was only put in place goes through its steps once more before it runs: nothing is left to fetch.
            anew = known is None or (known.phase is Phase.READY and known.wanted.ahead and not one.ahead)
            self._all[one.digest] = Activation(one, Phase.ABSENT, now) if known is None or anew else replace(known, wanted=one)
        needed = {*self._before.values(), *(one.digest for one in wanted)}
        gone = frozenset(self._all.keys() - needed)
        for digest in gone:
            del self._all[digest]
        return gone

    def all(self) -> list[Activation]:
        """Every environment that is wanted, or was before; by app and version."""
        return sorted(self._all.values(), key=lambda one: one.wanted)

    def get(self, digest: str) -> Activation | None:
        return self._all.get(digest)

    @property
    def under_way(self) -> bool:
        return any(one.phase in UNDER_WAY for one in self._all.values())

    @property
    def settled(self) -> bool:
        """Whether each environment that an app wants now is READY or was tried at least once."""
        current = [self._all[digest] for digest in self._current.values()]
        return all(one.phase is Phase.READY or one.failures > 0 for one in current)

    def next_due(self, now: float) -> Wanted | None:
        """What to work on: what apps wait for before what is for later, what was never tried before what failed."""
        due = [one for one in self._all.values() if one.due(now)]
        due.sort(key=lambda one: (one.wanted.ahead, one.failures, one.since, one.wanted))
        return due[0].wanted if due else None

    def wake_at(self) -> float | None:
        """When the next failed one is to be tried again; None where none failed."""
        return min((one.retry_at for one in self._all.values() if one.phase is Phase.FAILED), default=None)

    def begin(self, digest: str, now: float) -> None:
        one = self._all[digest]
        self._all[digest] = replace(one, phase=Phase.FETCHING, since=now, fetched_bytes=0, total_bytes=0)

    def advance(self, digest: str, phase: Phase, now: float) -> None:
        """The next step begins; raises ValueError for any other than the next."""
        one = self._all.get(digest)
        if one is None or one.phase is phase:
            return
        if _NEXT.get(one.phase) is not phase:
            raise ValueError(f"{one.wanted}: {phase} does not follow {one.phase}")
        self._all[digest] = replace(one, phase=phase, since=now)

    def progress(self, digest: str, fetched_bytes: int, total_bytes: int) -> None:
        one = self._all.get(digest)
        if one is not None:
            self._all[digest] = replace(one, fetched_bytes=fetched_bytes, total_bytes=total_bytes)

    def succeed(self, digest: str, now: float) -> None:
        """READY; raises ValueError where a step was left out."""
        self.advance(digest, Phase.READY, now)
        one = self._all.get(digest)
        if one is not None:
            self._all[digest] = replace(one, failures=0, failure=None)

    def fail(self, digest: str, failure: Failure, now: float) -> None:
        """FAILED: to be tried again after 2 s, and after twice as long each time, up to 5 minutes."""
        one = self._all.get(digest)
        if one is None:
            return
        pause = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(one.failures, 20))
        self._all[digest] = replace(
            one, phase=Phase.FAILED, since=now, failures=one.failures + 1, failure=failure, retry_at=now + pause
        )
