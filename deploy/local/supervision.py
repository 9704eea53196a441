"""What to do when a process of the platform ends: a pure policy, told of every end, without clock, process or socket."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

FIRST_DELAY_SECONDS: Final = 0.05
MAX_DELAY_SECONDS: Final = 10.0
HEALTHY_SECONDS: Final = 30.0


class Role(StrEnum):
    """What a process of the platform is for."""

    BROKER = "broker"
    HEAD = "head"
    GATEWAY = "gateway"
    POD = "pod"
    LANE = "lane"


class Step(StrEnum):
    """What the launcher does about the end of a process."""

    RESTART = "restart"
    """The same process again, under its own name."""
    REPLACE_POD = "replace pod"
    """A new pod with a new name in the same cluster."""
    REBUILD_CLUSTER = "rebuild cluster"
    """Discard all that is left of the cluster and build it anew."""


@dataclass(frozen=True, slots=True)
class Action:
    """`step` for the process (or, where the step says so, its cluster), after `delay_seconds`."""

    step: Step
    name: str
    cluster: str | None
    delay_seconds: float


_STEPS: Final = {
    Role.BROKER: Step.RESTART,
    Role.GATEWAY: Step.RESTART,
    Role.LANE: Step.RESTART,
    Role.POD: Step.REPLACE_POD,
    Role.HEAD: Step.REBUILD_CLUSTER,
}


class Supervision:
    """Decides about restarts.

    Owns the count of quick failures of each thing that is kept alive (a process by name; pods of one cluster together, as a
    replacement has a new name). The first restart comes at once; what ends again before it was healthy for 30 s waits twice
    as long each time. An end that was asked for is followed by nothing, an eviction by a replacement without back-off.
    """

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def ended(
        self, *, name: str, role: Role, cluster: str | None, ran_seconds: float, asked_for: bool, evicted: bool
    ) -> Action | None:
        """A process ended after `ran_seconds`; what to do now."""
        if asked_for:
            return None
        key = f"{role}/{cluster}" if role in (Role.POD, Role.HEAD) else f"{role}/{name}"
        if ran_seconds >= HEALTHY_SECONDS or evicted:
            self._failures[key] = 0
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = FIRST_DELAY_SECONDS if failures == 0 else min(MAX_DELAY_SECONDS, 0.5 * 2 ** (failures - 1))
        return Action(step=_STEPS[role], name=name, cluster=cluster, delay_seconds=delay)
