"""Pure arithmetic over the evidence of a run. All moments are epoch milliseconds of this machine.

A number that nothing was observed for is None (or an empty list), never 0.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import numpy as np

from deploy.chaos.evidence.answers import Answer
from deploy.chaos.evidence.executions import Execution
from deploy.chaos.evidence.wire import Sent
from deploy.chaos.faults import Stroke
from deploy.chaos.plan import Kind, Target
from deploy.chaos.site import Seen

SLOW_MS: Final = 1_000.0
# A kill's moment is taken just before the signals are sent, one process after the other.
KILL_TAKES_MS: Final = 30.0
SHARE_WINDOW_MS: Final = 2_000.0
# A pod of six has a few dozen jobs in so long: fewer, and chance alone would look like flapping.
FLAP_WINDOW_MS: Final = 4_000.0
BACK_SHARE: Final = 0.8
# The half line is crossed only by who gets so far beyond it, in parts of the undisturbed share.
FLAP_BAND: Final = 0.1
NORMAL_FACTOR: Final = 2.0
NORMAL_FLOOR_MS: Final = 250.0
LEAST_SPAN_MS: Final = 10_000.0
# What was struck may seem silent for so long after the fault's end.
SILENCED_MS: Final = 10_000.0
_began: Final = attrgetter("began_ms")
_due: Final = attrgetter("due_ms")
_from: Final = attrgetter("from_ms")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run left: answers by job, executions by moment, batches sent by moment (with `cluster/pod` as far as known)."""

    answers: Sequence[Answer]
    executions: Sequence[Execution]
    sent: Sequence[tuple[str, Sent]]
    pods: Sequence[Seen]

    def pod_of(self, session: int, at_ms: float) -> Seen | None:
        """Whose session it was at that moment: ids come again in a long run."""
        return max((pod for pod in self.pods if pod.session == session and pod.from_ms <= at_ms), key=_from, default=None)

    def node_of(self, stroke: Stroke) -> str | None:
        pod = self.pod_of(stroke.session, stroke.at_ms)
        return None if pod is None else pod.name

    def session_ends_ms(self, stroke: Stroke) -> float:
        """When another pod got the id of the struck one's session (infinity: never)."""
        later = (pod.from_ms for pod in self.pods if pod.session == stroke.session and pod.from_ms > stroke.at_ms)
        return min(later, default=float("inf"))

    def struck(self, stroke: Stroke, execution: Execution) -> bool:
        """Whether it ran in the pod that was struck."""
        if execution.session != stroke.session:
            return False
        return self.pod_of(execution.session, execution.began_ms) == self.pod_of(stroke.session, stroke.at_ms)


@dataclass(frozen=True, slots=True)
class Recovery:
    """After one fault. `recovery_ms`: until every partition had answered a job that was due after it. `settled_ms`: until the
    last job that took over a second, of those due before every partition had recovered, was answered (0: none did)."""

    recovery_ms: float
    settled_ms: float


@dataclass(frozen=True, slots=True)
class LastDispatch:
    """From a notice to the last batch that went to the pod, by three witnesses (milliseconds, 0 when nothing came after it).

    `executed`: the last job that the user's function began there. `wire`: the last bytes of a batch that a lane's kernel sent
    there, refused ones too. `headers`: the last job answered from there, by its `timing`.
    """

    executed: float
    wire: float
    headers: float

    @property
    def worst(self) -> float:
        return max(self.executed, self.wire)


def recovery_after(fault_ms: float, answers: Sequence[Answer]) -> Recovery:
    """How long a fault at `fault_ms` was felt; partitions without a job after it count for nothing."""
    first_after: dict[int, float] = {}
    for answer in answers:
        if answer.due_ms >= fault_ms:
            first_after[answer.partition] = min(answer.answered_ms, first_after.get(answer.partition, answer.answered_ms))
    recovered_ms = max(first_after.values(), default=fault_ms)
    slow = [
        answer.answered_ms
        for answer in answers
        if fault_ms <= answer.answered_ms and answer.due_ms <= recovered_ms and answer.latency_ms > SLOW_MS
    ]
    return Recovery(recovery_ms=recovered_ms - fault_ms, settled_ms=max(slow, default=fault_ms) - fault_ms)


def last_dispatches(strokes: Iterable[Stroke], evidence: Evidence) -> list[LastDispatch]:
    """One for each notice."""
    began: dict[int, list[float]] = defaultdict(list)
    for execution in evidence.executions:
        began[execution.session].append(execution.began_ms)
    wired: dict[str, list[float]] = defaultdict(list)
    for node, sent in evidence.sent:
        wired[node].append(sent.at_ms)
    told: dict[str, list[float]] = defaultdict(list)
    for answer in evidence.answers:
        if answer.node is not None and answer.dispatched_ms is not None:
            told[answer.node].append(answer.dispatched_ms)
    return [
        LastDispatch(
            executed=max(0.0, _last_beginning(stroke, began[stroke.session], evidence) - stroke.at_ms),
            wire=max(0.0, max(wired[node], default=0.0) - stroke.at_ms),
            headers=max(0.0, max(told[node], default=0.0) - stroke.at_ms),
        )
        for stroke in strokes
        if stroke.kind is Kind.NOTICE and (node := evidence.node_of(stroke) or stroke.target)
    ]


def _last_beginning(stroke: Stroke, began: Sequence[float], evidence: Evidence) -> float:
    """The last of the jobs that began in the struck pod, out of all of its session's id; 0 when there is none."""
    ends_ms = evidence.session_ends_ms(stroke)
    return max((ms for ms in began if ms < ends_ms), default=0.0)


def redispatches(strokes: Iterable[Stroke], evidence: Evidence) -> list[float]:
    """For each job that had begun in a killed pod or worker and had not ended: from the kill until it began elsewhere.

    0 where it was running elsewhere already. Jobs that never began again (their deadline passed) are left out: they show as what
    they became.
    """
    by_job: dict[int, list[Execution]] = defaultdict(list)
    for execution in evidence.executions:
        by_job[execution.job].append(execution)
    waits = []
    for stroke in strokes:
        if stroke.kind is not Kind.KILL or stroke.role not in (Target.POD, Target.WORKER, Target.HEAD):
            continue
        died = [
            execution
            for execution in evidence.executions
            if execution.ended_ms is None
            and execution.began_ms <= stroke.at_ms + KILL_TAKES_MS
            and _is_victim(execution, stroke, evidence)
        ]
        for victim in died:
            others = [other for other in by_job[victim.job] if other.pid != victim.pid]
            if any(other.began_ms <= stroke.at_ms and (other.ended_ms or stroke.at_ms) >= stroke.at_ms for other in others):
                waits.append(0.0)
                continue
            later = [other.began_ms for other in others if other.began_ms > stroke.at_ms]
            if later:
                waits.append(min(later) - stroke.at_ms)
    return waits


def _is_victim(execution: Execution, stroke: Stroke, evidence: Evidence) -> bool:
    if stroke.role is Target.WORKER:
        return execution.pid == stroke.session
    if stroke.role is Target.HEAD:
        pod = evidence.pod_of(execution.session, execution.began_ms)
        return pod is not None and pod.cluster == stroke.cluster
    return evidence.struck(stroke, execution)


def extra_attempts_share(executions: Sequence[Execution]) -> float | None:
    """How many calls there were beyond the first of each job, as a share of the jobs that were called at all."""
    jobs = len({execution.job for execution in executions})
    return None if not jobs else len(executions) / jobs - 1


def workers_lost(executions: Sequence[Execution]) -> int:
    """How many processes died under jobs that were made to kill them."""
    return len({execution.pid for execution in executions if execution.job < 0 and execution.ended_ms is None})


def silent_after(stroke: Stroke, evidence: Evidence) -> float:
    """From a freeze to the last batch sent to the pod while it was frozen (0: none)."""
    until_ms = stroke.until_ms or float("inf")
    node = evidence.node_of(stroke)
    sent = [batch.at_ms for name, batch in evidence.sent if name == node and stroke.at_ms < batch.at_ms < until_ms]
    return max(sent, default=stroke.at_ms) - stroke.at_ms


def serving_again(stroke: Stroke, evidence: Evidence) -> float | None:
    """From the kill or eviction of a pod or head to the first job that began in a pod of its cluster that started later."""
    newer = {pod.session: pod.from_ms for pod in evidence.pods if pod.cluster == stroke.cluster and pod.from_ms > stroke.at_ms}
    began = [one.began_ms for one in evidence.executions if one.began_ms >= newer.get(one.session, float("inf"))]
    return min(began) - stroke.at_ms if began else None


def back_in_rotation(stroke: Stroke, evidence: Evidence) -> float | None:
    """From the end of a lasting fault to the first job that the pod began after it for a batch sent after it."""
    if stroke.until_ms is None:
        return None
    node = evidence.node_of(stroke)
    sent = [batch.at_ms for name, batch in evidence.sent if name == node and batch.at_ms > stroke.until_ms]
    return min(sent) - stroke.until_ms if sent else None


def share(session: int, executions: Sequence[Execution], from_ms: float, until_ms: float) -> float | None:
    """The pod's part of all jobs that began in this span; None when none did."""
    first = bisect.bisect_left(executions, from_ms, key=_began)
    span = executions[first : bisect.bisect_left(executions, until_ms, lo=first, key=_began)]
    return sum(execution.session == session for execution in span) / len(span) if span else None


def undisturbed_share(stroke: Stroke, executions: Sequence[Execution]) -> float | None:
    """The pod's part of all jobs in the ten seconds before the fault; None where it had none."""
    return share(stroke.session, executions, stroke.at_ms - 10_000, stroke.at_ms) or None


def share_halved_after(stroke: Stroke, evidence: Evidence) -> float | None:
    """From a throttle to the end of the first 2 s in which the pod's share is below half of what it was before; None: never."""
    end_ms = stroke.until_ms or float("inf")
    before = undisturbed_share(stroke, evidence.executions)
    if before is None:
        return None
    start_ms = stroke.at_ms
    while start_ms + SHARE_WINDOW_MS <= end_ms and start_ms < stroke.at_ms + 60_000:
        during = share(stroke.session, evidence.executions, start_ms, start_ms + SHARE_WINDOW_MS)
        if during is not None and during < before / 2:
            return start_ms + SHARE_WINDOW_MS - stroke.at_ms
        start_ms += SHARE_WINDOW_MS / 4
    return None


def share_back_after(stroke: Stroke, evidence: Evidence) -> float | None:
    """From a fault's end to the end of the first 4 s in which the pod has `BACK_SHARE` of what it had before; None: never."""
    before = undisturbed_share(stroke, evidence.executions)
    if before is None or stroke.until_ms is None:
        return None
    start_ms, last_ms = stroke.until_ms, evidence.executions[-1].began_ms
    while start_ms + FLAP_WINDOW_MS <= last_ms:
        after = share(stroke.session, evidence.executions, start_ms, start_ms + FLAP_WINDOW_MS)
        if after is not None and after >= BACK_SHARE * before:
            return start_ms + FLAP_WINDOW_MS - stroke.until_ms
        start_ms += FLAP_WINDOW_MS / 8
    return None


def share_crossings(stroke: Stroke, evidence: Evidence) -> tuple[int, int] | None:
    """How often the pod's share fell below half of what it was before the fault, and rose over it, from the fault to the end of
    the load, looked at every 4 s; None where it had no share before."""
    before = undisturbed_share(stroke, evidence.executions)
    if before is None:
        return None
    falls = rises = 0
    high = True
    start_ms, last_ms = stroke.at_ms, evidence.executions[-1].began_ms
    while start_ms + FLAP_WINDOW_MS <= last_ms:
        now = share(stroke.session, evidence.executions, start_ms, start_ms + FLAP_WINDOW_MS)
        if now is not None and high and now < (0.5 - FLAP_BAND) * before:
            high, falls = False, falls + 1
        elif now is not None and not high and now > (0.5 + FLAP_BAND) * before:
            high, rises = True, rises + 1
        start_ms += FLAP_WINDOW_MS
    return falls, rises


def share_at_return(stroke: Stroke, evidence: Evidence) -> float | None:
    """What part of its undisturbed share the pod has in the first 4 s after the first batch sent there after the fault's end."""
    before, waited = undisturbed_share(stroke, evidence.executions), back_in_rotation(stroke, evidence)
    if before is None or waited is None or stroke.until_ms is None:
        return None
    start_ms = stroke.until_ms + waited
    after = share(stroke.session, evidence.executions, start_ms, start_ms + FLAP_WINDOW_MS)
    return None if after is None else after / before


def percentile_between(answers: Sequence[Answer], from_ms: float, until_ms: float, percentile: float) -> float | None:
    """Latency of the jobs that were due in this span (milliseconds)."""
    found = [answer.latency_ms for answer in answers if from_ms <= answer.due_ms < until_ms]
    return float(np.percentile(found, percentile, method="inverted_cdf")) if found else None


def normal_after(from_ms: float, answers: Sequence[Answer], *, usual_until_ms: float | None = None) -> float | None:
    """From a moment to the first of three seconds in a row whose p95 is at most twice that of the ten seconds before
    `usual_until_ms` (None: before that moment), but up to 250 ms is always normal; None when that never came. Jobs count in the
    second in which they were due."""
    ordered = sorted(answers, key=_due)
    due = [answer.due_ms for answer in ordered]

    def p95(from_ms: float, until_ms: float) -> float | None:
        span = ordered[bisect.bisect_left(due, from_ms) : bisect.bisect_left(due, until_ms)]
        return float(np.percentile([answer.latency_ms for answer in span], 95)) if span else None

    usual_until_ms = from_ms if usual_until_ms is None else usual_until_ms
    bound = max(NORMAL_FLOOR_MS, NORMAL_FACTOR * (p95(usual_until_ms - 10_000, usual_until_ms) or 0.0))
    start_ms = from_ms
    while due and start_ms + 3_000 <= due[-1] + 1_000:
        seconds = [p95(start_ms + number * 1000, start_ms + number * 1000 + 1000) for number in range(3)]
        if all(value is not None and value <= bound for value in seconds):
            return start_ms - from_ms
        start_ms += 250
    return None


def ok_after(from_ms: float, answers: Sequence[Answer], *, share: float, within_ms: float) -> float | None:
    """From a moment until so large a share of all jobs that are due later (ten seconds of them at least) is `ok` within
    `within_ms`; None when that never came."""
    ordered = sorted((answer for answer in answers if answer.due_ms >= from_ms), key=_due)
    bad = sum(answer.outcome != "ok" or answer.latency_ms > within_ms for answer in ordered)
    for number, answer in enumerate(ordered):
        if ordered[-1].due_ms - answer.due_ms < LEAST_SPAN_MS:
            break
        if bad <= (1 - share) * (len(ordered) - number):
            return answer.due_ms - from_ms
        bad -= answer.outcome != "ok" or answer.latency_ms > within_ms
    return None


def view_again(told: Sequence[tuple[float, frozenset[str]]], fault_ms: float) -> float | None:
    """From a fault until every node that the view told of in the three seconds before it has been told of again; None: never.

    `told` are the view's records: when each was appended, and which nodes it names.
    """
    before = frozenset[str]().union(*(nodes for at_ms, nodes in told if fault_ms - 3_000 <= at_ms <= fault_ms))
    missing = set(before)
    for at_ms, nodes in told:
        if at_ms > fault_ms:
            missing -= nodes
            if before and not missing:
                return at_ms - fault_ms
    return None


def suspected_wrongly(
    suspected: Sequence[tuple[float, str]], strokes: Iterable[Stroke], evidence: Evidence
) -> list[tuple[float, str]]:
    """Silences that no fault explains: none struck the node, its cluster's head or the broker in the `SILENCED_MS` before."""
    struck: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for stroke in strokes:
        span = (stroke.at_ms, (stroke.until_ms or stroke.at_ms) + SILENCED_MS)
        names = {evidence.node_of(stroke) or stroke.target}
        if stroke.role is Target.HEAD:
            names = {pod.name for pod in evidence.pods if pod.cluster == stroke.cluster}
        elif stroke.role is Target.BROKER:
            names = {pod.name for pod in evidence.pods}
        for name in names:
            struck[name].append(span)
    return [
        (at_ms, node) for at_ms, node in suspected if not any(begun <= at_ms <= ended for begun, ended in struck.get(node, ()))
    ]
