"""`rayline drain NODE`: an operator's order, which comes through the live configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from workers.notices.base import Notice


class OperatorOrder:
    """Turns the setting `drain` of this node into a notice. Does not own how the setting gets here.

    What is in force before the node first reports was ordered for an earlier pod of the same name, and is no notice.

    Life cycle: `set` at any time; what is set before `begin` does not count -> `begin` -> `run` until cancelled.
    """

    def __init__(self) -> None:
        self._begun = False
        self._ordered = asyncio.Event()

    @property
    def ordered(self) -> bool:
        """Whether this pod was ordered to drain."""
        return self._ordered.is_set()

    def begin(self) -> None:
        """From now on the order is for this pod."""
        self._begun = True

    def set(self, drain: bool) -> None:
        """The setting's new value. Taking it back does not help any more: a drain ends the pod."""
        if drain and self._begun:
            self._ordered.set()

    async def run(self, give: Callable[[Notice], None], drained: asyncio.Event) -> None:  # noqa: ARG002 - the reports answer
        await self._ordered.wait()
        give(Notice("rayline drain"))
