"""One batch in an executor's hands."""

from __future__ import annotations

from collections.abc import Callable

from rayline.wire import BatchHead
from workers.answers import Answers


class Run:
    """One batch in an executor's hands, as others may watch it.

    Owns the answers and the flags. `call_started` is the monotonic start of the call that runs now (None: none runs);
    `deadline` is when the batch's budget ends; setting `draining` hands back what did not start by the next job boundary.
    `announce` tells the lane that a batch that must be alone begins.
    """

    __slots__ = ("announce", "answers", "call_started", "deadline", "draining", "entered", "execute_seconds", "head")

    def __init__(self, *, head: BatchHead, now: float) -> None:
        self.head = head
        self.deadline = now + head.budget_ms / 1000
        self.answers = Answers()
        self.call_started: float | None = None
        self.draining = False
        self.entered: float | None = None
        self.execute_seconds = 0.0
        self.announce: Callable[[], None] | None = None
