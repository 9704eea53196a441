"""One batch in an executor's hands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from rayline.wire import BatchHead, Verdict
from workers.answers import Answers


class Run:
    """One batch in an executor's hands, as others may watch it.

    Owns the answers and the flags. `call_started` is the monotonic start of the call that runs now (None: none runs);
    `deadline` is when the batch's budget ends; setting `draining` hands back what did not start by the next job boundary.
    `announce` tells the lane of a batch that must be alone which job begins (WHOLE_BATCH: all at once), as `AnswerHead.begins`;
    `hand_out` sends what is answered so far, all of it by `model_version`. `around`, where there is one, is entered around the
    calls in the batch's own thread, and gives what is told their verdict.

    `position` is the job whose call runs in the batch's own thread now (None: the whole batch, or none), `job_ids` what the head
    says of the jobs, once somebody wanted to know; `lines_printed` and `lines_dropped` count what the function printed.
    """

    __slots__ = (
        "announce",
        "answers",
        "around",
        "call_started",
        "deadline",
        "draining",
        "entered",
        "execute_seconds",
        "hand_out",
        "head",
        "job_ids",
        "lines_dropped",
        "lines_printed",
        "model_version",
        "position",
    )

    def __init__(self, *, head: BatchHead, now: float) -> None:
        self.head = head
        self.deadline = now + head.budget_ms / 1000
        self.answers = Answers()
        self.call_started: float | None = None
        self.draining = False
        self.entered: float | None = None
        self.execute_seconds = 0.0
        self.announce: Callable[[int], None] | None = None
        self.position: int | None = None
        self.job_ids: list[str] | None = None
        self.lines_printed = 0
        self.lines_dropped = 0
        self.hand_out: Callable[[], None] | None = None
        self.around: AbstractContextManager[Callable[[Verdict], None]] | None = None
        self.model_version: str | None = None
