"""What follows when a batch did not finish: pure decisions, no clock, no I/O.

An eviction (the node drains, left, or fell silent) is not an error of the job and draws on its own budget. A worker that died
under a batch is the fault of one of its unfinished jobs until shown otherwise: the batch is halved, and each half runs with no
other batch beside it in the same process, until the job at fault stands alone. Where jobs run one by one, the actor of such a
half says which one begins, and the next death names its job. So the deaths that one job can cause are bounded by log2 of the
first batch + `retries.kills`, and are seldom more than 1 + `retries.kills`. Nobody is condemned before the nodes under which its
workers died have shown that they outlived them. A call that hung names its job where jobs run one by one; otherwise the batch is
halved too.

Expired jobs are not decided here: their deadline is (see `scheduler.dispatcher`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from rayline.app_spec import Retries
from rayline.jobs import Job
from rayline.results import Outcome
from scheduler.batch import ALWAYS, Batch, Cause, Death, Sent, next_batch_id


class Fate(Enum):
    """What became of the node incarnation on which a worker died."""

    LEFT = auto()
    OUTLIVED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Again:
    """Dispatch this batch."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Wait:
    """This batch is as good as condemned: `judge` it again once more is known of the nodes its workers died on."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Each job of this batch ends with this outcome."""

    batch: Batch
    outcome: Outcome
    error_type: str
    error_message: str


Decision = Again | Wait | GiveUp


@dataclass(frozen=True, slots=True)
class Rules:
    """What decisions depend on besides the batch: the app's budgets, whether its jobs run one by one (`sequential`), the prefix
    of new batch ids, and what is known by now of a death's node."""

    retries: Retries
    sequential: bool
    prefix: str
    fate: Callable[[Death], Fate]


def decide(
    batch: Batch,
    unfinished: Sequence[Job],
    cause: Cause,
    rules: Rules,
    *,
    node: str,
    sent: Sent | None = None,
    death: Death | None = None,
    accused: Job | None = None,
    apart: bool = False,
) -> list[Decision]:
    """Decide over the unfinished jobs of a batch that was on `node`; `death` is given where its worker died (KILLED), `sent`
    unless an earlier owner of their partition sent it and did not tell where.

    `accused` is the one of them that ran then, as far as that is known. `apart`: what became of its worker is not known, so
    suspects (EVICTED) do not stay together.
    """
    rest = batch.part(unfinished, batch_id=next_batch_id(rules.prefix), avoid=batch.avoid | {node})
    rest.trial = None
    if sent is not None:
        rest.trail = batch.trail.ended(sent, cause)
    if cause is not Cause.REFUSED:
        rest.again = cause
    match cause:
        case Cause.REFUSED:
            return [Again(rest)]
        case Cause.EVICTED:
            decision = _after_eviction(rest, rules.retries)
            if apart and rest.suspect and len(unfinished) > 1 and isinstance(decision, Again):
                return [Again(part) for part in _parts(rest, accused, rules.prefix)]
            return [decision]
        case Cause.ERROR:
            rest.errors += 1
            return [Again(rest)]
        case Cause.KILLED:
            assert death is not None
            rest.suspects = batch.suspects or len(unfinished)
            before = _that_count(batch.deaths, rules)
            rest.deaths = (*before, death)
            if len(unfinished) == 1:
                return [judge(rest, rules)]
            parts = _parts(rest, accused, rules.prefix)
            if accused is None:
                return [Again(part) for part in parts]
            others, named = parts
            others.deaths = before
            return [Again(others), judge(named, rules)]
        case Cause.HUNG:
            return _after_hang(rest, rules)


def judge(batch: Batch, rules: Rules) -> Decision:
    """Decide over a batch of one job under which workers died."""
    batch.deaths = _that_count(batch.deaths, rules)
    alone = [death for death in batch.deaths if death.alone]
    kills = rules.retries.kills
    if len(alone) < kills and not (alone and len(batch.deaths) >= most_deaths(batch.suspects, kills)):
        return Again(batch)
    if any(rules.fate(death) is Fate.UNKNOWN for death in alone):
        return Wait(batch)
    return GiveUp(
        batch,
        Outcome.QUARANTINED,
        "rayline.WorkerDied",
        f"{len(batch.deaths)} worker(s) died under this job, {len(alone)} of them while it ran alone (retries.kills = {kills})",
    )


def _that_count(deaths: Sequence[Death], rules: Rules) -> tuple[Death, ...]:
    """Without those that went with their nodes; a node that outlived its worker may leave later, that changes nothing."""
    fates = [(death, rules.fate(death)) for death in deaths]
    return tuple(replace(death, at=ALWAYS) if fate is Fate.OUTLIVED else death for death, fate in fates if fate is not Fate.LEFT)


def most_deaths(suspects: int, kills: int) -> int:
    """How many workers one job may kill that was among so many suspects at first."""
    return (suspects - 1).bit_length() + kills


def _after_eviction(rest: Batch, retries: Retries) -> Decision:
    rest.evictions += 1
    if rest.evictions <= retries.evictions:
        return Again(rest)
    return GiveUp(
        rest,
        Outcome.ERROR,
        "rayline.EvictionsExceeded",
        f"its node was evicted {rest.evictions} times (retries.evictions allows {retries.evictions})",
    )


def _after_hang(rest: Batch, rules: Rules) -> list[Decision]:
    if len(rest.jobs) > 1 and not rules.sequential:
        return [Again(half) for half in _parts(rest, None, rules.prefix)]
    hung = rest.part(rest.jobs[:1], batch_id=next_batch_id(rules.prefix))
    hung.timeouts += 1
    others: list[Decision] = [Again(rest.part(rest.jobs[1:]))] if len(rest.jobs) > 1 else []
    if hung.timeouts <= rules.retries.timeouts:
        return [*others, Again(hung)]
    message = f"the function did not return within its limit, {hung.timeouts} time(s) (limits.execute_seconds)"
    return [*others, GiveUp(hung, Outcome.ERROR, "rayline.ExecutionTimeout", message)]


def _parts(batch: Batch, accused: Job | None, prefix: str) -> tuple[Batch, Batch]:
    """Two batches out of one of at least two jobs: all others and the accused one, or halves."""
    if accused is None:
        middle = len(batch.jobs) // 2
        parts = batch.jobs[:middle], batch.jobs[middle:]
    else:
        parts = [job for job in batch.jobs if job is not accused], [accused]
    first, second = (batch.part(jobs, batch_id=next_batch_id(prefix)) for jobs in parts)
    return first, second
