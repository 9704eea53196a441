"""What follows when a batch did not finish: pure decisions, no clock, no I/O.

An eviction (the node drains, left, or never got the batch) is not an error of the job and draws on its own budget. A worker
that died under a batch, or a call that hung, is the fault of one of its jobs until shown otherwise: the batch is halved until
that job stands alone. Expired jobs are not decided here: their deadline is (see `scheduler.dispatcher`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rayline.app_spec import Retries
from rayline.jobs import Job
from rayline.results import Outcome
from scheduler.batch import Batch, NodeIncarnation, next_batch_id


class Cause(StrEnum):
    """Why jobs of a batch are unfinished."""

    EVICTED = "evicted"
    BUSY = "busy"
    KILLED = "killed"
    HUNG = "hung"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Again:
    """Dispatch these batches."""

    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Each of the jobs ends with this outcome."""

    outcome: Outcome
    error_type: str
    error_message: str


def decide(
    batch: Batch,
    unfinished: Sequence[Job],
    cause: Cause,
    *,
    node: NodeIncarnation,
    retries: Retries,
    prefix: str,
    evicted: Callable[[NodeIncarnation], bool],
) -> Again | GiveUp:
    """Decide over the unfinished jobs of a batch that was on `node`.

    `prefix` names new batches. `evicted` tells of a node incarnation whether it is known by now to have left: a worker that
    died there died with its node, and no job is to blame.
    """
    rest = batch.part(unfinished, batch_id=next_batch_id(prefix), avoid=batch.avoid | {node[0]})
    match cause:
        case Cause.BUSY:
            return Again((rest,))
        case Cause.EVICTED:
            rest.evictions += 1
            if rest.evictions > retries.evictions:
                return GiveUp(
                    Outcome.ERROR,
                    "rayline.EvictionsExceeded",
                    f"its node was evicted {rest.evictions} times (retries.evictions allows {retries.evictions})",
                )
            return Again((rest,))
        case Cause.ERROR:
            rest.errors += 1
            return Again((rest,))
        case Cause.KILLED:
            if len(unfinished) > 1:
                return Again(_halves(rest, prefix))
            rest.blamed = tuple(blamed for blamed in (*rest.blamed, node) if not evicted(blamed))
            if len(rest.blamed) >= retries.kills:
                return GiveUp(
                    Outcome.QUARANTINED,
                    "rayline.WorkerDied",
                    f"{len(rest.blamed)} worker(s) died while this job ran alone (retries.kills = {retries.kills})",
                )
            return Again((rest,))
        case Cause.HUNG:
            if len(unfinished) > 1:
                return Again(_halves(rest, prefix))
            rest.timeouts += 1
            if rest.timeouts > retries.timeouts:
                return GiveUp(
                    Outcome.ERROR,
                    "rayline.ExecutionTimeout",
                    f"the function did not return within its limit, {rest.timeouts} time(s) (limits.execute_seconds)",
                )
            return Again((rest,))


def _halves(batch: Batch, prefix: str) -> tuple[Batch, Batch]:
    middle = len(batch.jobs) // 2
    return (
        batch.part(batch.jobs[:middle], batch_id=next_batch_id(prefix)),
        batch.part(batch.jobs[middle:], batch_id=next_batch_id(prefix)),
    )
