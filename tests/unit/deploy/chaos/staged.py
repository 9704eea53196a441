"""A small staged run: what tests of measures, bars and picture look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deploy.chaos.evidence.answers import Answer
from deploy.chaos.evidence.executions import Execution
from deploy.chaos.evidence.wire import Sent
from deploy.chaos.faults import Stroke
from deploy.chaos.measures import Evidence
from deploy.chaos.plan import Bars, Kind, LoadSpec, Target, load_plan
from deploy.chaos.site import Seen
from deploy.chaos.verdict import Found, Verdict
from deploy.checker import LatencyMs, Report

BEGUN_MS = 1_000_000.0
FAULT_MS = BEGUN_MS + 10_000.0
REPORT = Report(3, 3, {"ok": 3}, 0, 0, 0, 0, 0, 0, LatencyMs(1, 1, 1, 1), 0, 1)
PODS = {pid: Seen(f"c1/pod-{pid}", "c1", pid, BEGUN_MS - 1_000) for pid in (101, 102)}


def stroke(kind: Kind = Kind.NOTICE, role: Target = Target.POD, session: int = 101, **changes: Any) -> Stroke:
    return replace(Stroke(FAULT_MS, kind, f"c1-pod-{session}", role, session=session, cluster="c1"), **changes)


def answer(job: int = 0, *, due: float = 0.0, took: float = 300.0, partition: int = 0, **changes: Any) -> Answer:
    """`due` counts from the fault, in milliseconds."""
    return replace(Answer(job, partition, FAULT_MS + due, FAULT_MS + due + took), **changes)


def execution(job: int, session: int, began: float, ended: float | None = None, pid: int | None = None) -> Execution:
    """Moments count from the fault, in milliseconds."""
    return Execution(job, session, pid or session, FAULT_MS + began, None if ended is None else FAULT_MS + ended)


def evidence(
    answers: Sequence[Answer] = (), executions: Sequence[Execution] = (), sent: Sequence[tuple[int, float]] = ()
) -> Evidence:
    """`sent` holds sessions and moments after the fault."""
    batches = [(PODS[pid].name, Sent("127.77.0.1", 1, FAULT_MS + at, 1000)) for pid, at in sent]
    return Evidence(answers, executions, batches, tuple(PODS.values()))


def verdict(
    report: Report = REPORT,
    *,
    strokes: Sequence[Stroke] | None = None,
    seen: Evidence | None = None,
    left: int = 0,
    bars: Bars | None = None,
    view: Sequence[tuple[float, set[str]]] = (),
    load: LoadSpec | None = None,
) -> Verdict:
    plan = load_plan("notice")
    found = Found(
        report=report,
        evidence=evidence([answer(due=1)]) if seen is None else seen,
        strokes=[stroke()] if strokes is None else strokes,
        begun_ms=BEGUN_MS,
        ended_ms=BEGUN_MS + 60_000,
        rate_per_second=50.0,
        sustained_per_second=100.0,
        view=[(FAULT_MS + at, frozenset(nodes)) for at, nodes in view],
        old_processes_alive=0,
    )
    return Verdict(plan.model_copy(update={"bars": bars or Bars(), "load": load or LoadSpec()}), 3, found, left)
