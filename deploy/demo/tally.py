"""What the demo knows while it runs: a pure count of jobs, results, nodes and events; time comes in as an argument."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rayline.results import Outcome, Result

RATE_WINDOW_SECONDS: Final = 5.0
RECENT_LATENCIES: Final = 40


@dataclass(slots=True)
class NodeTally:
    """One node, as the headers of the results from it tell: jobs, distinct batches, jobs that came on a later attempt."""

    cluster: str
    jobs: int = 0
    batches: set[str] = field(default_factory=set)
    retried_jobs: int = 0
    execute_ms: float = 0.0
    last_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for people; `at` in seconds since the beginning."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The first result of one job; `latency_ms` from just before it was produced until a read_committed reader had it."""

    result: Result
    latency_ms: float
    at: float


class Tally:
    """Owns the counts. Does not read Kafka and judges nothing: what is lost or duplicated says the checker.

    Life: `sent`, `answered`, `happened` in any order, read at any time.
    """

    def __init__(self, *, planned: int) -> None:
        self.planned = planned
        self.sent_at: dict[str, float] = {}
        self.answers: dict[str, Answer] = {}
        self.nodes: dict[str, NodeTally] = {}
        self.events: list[Event] = []
        self._finished_at: deque[float] = deque()

    def sent(self, job_id: str, at: float) -> None:
        """A job is about to be produced."""
        self.sent_at[job_id] = at

    def answered(self, result: Result, at: float) -> None:
        """A result was read; a second one of the same job changes nothing here."""
        if result.job_id not in self.sent_at or result.job_id in self.answers:
            return
        self.answers[result.job_id] = Answer(result=result, latency_ms=(at - self.sent_at[result.job_id]) * 1000, at=at)
        self._finished_at.append(at)
        if result.node is None or not result.answered:
            return
        node = self.nodes.setdefault(result.node, NodeTally(cluster=result.cluster or ""))
        node.jobs += 1
        node.retried_jobs += result.attempts > 1
        node.execute_ms += result.timing_ms.get("execute", 0.0)
        node.last_at = at
        if result.batch is not None:
            node.batches.add(result.batch)

    def happened(self, text: str, at: float) -> None:
        self.events.append(Event(at=at, text=text))

    @property
    def complete(self) -> bool:
        return len(self.answers) >= self.planned

    @property
    def outcomes(self) -> dict[str, int]:
        counted = Counter(answer.result.outcome for answer in self.answers.values())
        return {outcome.value: counted[outcome] for outcome in Outcome if counted[outcome]}

    @property
    def retries(self) -> int:
        """Attempts beyond the first one, of all jobs."""
        return sum(max(0, answer.result.attempts - 1) for answer in self.answers.values())

    def rate_per_second(self, now: float) -> float:
        """Results in the last seconds."""
        while self._finished_at and self._finished_at[0] < now - RATE_WINDOW_SECONDS:
            self._finished_at.popleft()
        return len(self._finished_at) / RATE_WINDOW_SECONDS

    def recent_latencies_ms(self) -> list[float]:
        """Of the last answers, oldest first."""
        return [answer.latency_ms for answer in list(self.answers.values())[-RECENT_LATENCIES:]]

    def oldest_waiting_seconds(self, now: float) -> float:
        """Age of the oldest job without an answer; 0 where none waits."""
        waiting = [at for job_id, at in self.sent_at.items() if job_id not in self.answers]
        return now - min(waiting) if waiting else 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed (nearest rank); 0 of nothing."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
