"""What a notice is, and what its sources have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Notice:
    """The pod will be taken away. `reason` says by which way that became known; `grace_seconds` is the time that is left, None
    where the source does not tell."""

    reason: str
    grace_seconds: float | None = None


class NoticeSource(Protocol):
    """One way in which a notice comes."""

    async def run(self, give: Callable[[Notice], None], drained: asyncio.Event) -> None:
        """Watch until cancelled, and `give` each notice; giving twice does no harm.

        `drained` is set once nothing is in flight in the pod any more, or the grace period is over.
        """
