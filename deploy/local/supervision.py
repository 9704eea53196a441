"""What to do when a process of the platform ends: a pure policy, told of every end, without clock, process or socket."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

FIRST_DELAY_SECONDS: Final = 0.05
MAX_DELAY_SECONDS: Final = 10.0
HEALTHY_SECONDS: Final = 30.0


class Role(StrEnum):
    """What a process of the platform is for."""

    BROKER = "broker"
    KEEPER = "keeper"
    RESOURCE = "resource"
    HEAD = "head"
    GATEWAY = "gateway"
    POD = "pod"
    LANE = "lane"
    CONSOLE = "console"


class Supervision:
    """How long a process that ended waits before it is started again under its own name.

    Owns the count of quick failures of each. The first restart comes at once; what ends again before it was healthy for 30 s
    waits twice as long each time. Heads and pods are not started again at all: what follows their end is the keeper's to order.
    """

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def restart_delay(self, name: str, *, ran_seconds: float) -> float:
        """Seconds until the restart of a process that ended after `ran_seconds`."""
        failures = 0 if ran_seconds >= HEALTHY_SECONDS else self._failures.get(name, 0)
        self._failures[name] = failures + 1
        return FIRST_DELAY_SECONDS if failures == 0 else min(MAX_DELAY_SECONDS, 0.5 * 2 ** (failures - 1))
