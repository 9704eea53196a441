"""What a chaos run found: the numbers, the bars, and the form for machines.

Two clocks matter, and both are this machine's: a job is *due* by the load's schedule (not when it could be produced, so that an
outage of the broker counts), and is *answered* at the append time of its first result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from deploy.chaos import measures
from deploy.chaos.bars import Bar, judge
from deploy.chaos.evidence.answers import Answer
from deploy.chaos.faults import Stroke
from deploy.chaos.measures import Evidence, LastDispatch, Recovery
from deploy.chaos.plan import Kind, Plan, Target
from deploy.checker import LatencyMs, Report

SLA_MS: Final = 10_000.0
CALM_MS: Final = 14_000.0
OK_AGAIN_SHARE: Final = 0.999
_CONTROL_PLANE: Final = (Target.RESOURCE, Target.KEEPER, Target.GATEWAY)
_LASTING: Final = (Kind.THROTTLE, Kind.HOG, Kind.FREEZE, Kind.LOSS, Kind.DELAY, Kind.PARTITION, Kind.DISK_FULL)


@dataclass(frozen=True, slots=True)
class Found:
    """What one run gave: the checker's report, the evidence, what was done to whom.

    `sustained_per_second` is the calibration's (None: the rate was given). `view` are the view's records: when
    appended, which nodes. `old_processes_alive` counts what still ran of clusters whose head was killed, when the load ended.
    `suspected`: which nodes the resources told of as silent, and when.
    """

    report: Report
    evidence: Evidence
    strokes: Sequence[Stroke]
    begun_ms: float
    ended_ms: float
    rate_per_second: float
    sustained_per_second: float | None
    view: Sequence[tuple[float, frozenset[str]]]
    old_processes_alive: int
    suspected: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Verdict:
    """`lost`, `duplicated`, `wrong` and `outcomes` are the checker's; the rest is computed from the evidence, once.

    `left_over_processes` is None where the platform was not stopped.
    """

    plan: Plan
    seed: int
    found: Found
    left_over_processes: int | None

    @cached_property
    def jobs(self) -> int:
        return self.found.report.jobs

    @cached_property
    def outcomes(self) -> Mapping[str, int]:
        return self.found.report.outcomes

    @cached_property
    def lost(self) -> int:
        return self.found.report.lost

    @cached_property
    def duplicated(self) -> int:
        return self.found.report.duplicated + self.found.report.unknown

    @cached_property
    def wrong(self) -> int:
        return self.found.report.wrong_payload + self.found.report.mismatched_ids

    @cached_property
    def answers(self) -> Sequence[Answer]:
        return self.found.evidence.answers

    @cached_property
    def strokes(self) -> Sequence[Stroke]:
        return self.found.strokes

    @cached_property
    def done(self) -> list[Stroke]:
        """The strokes that happened."""
        return [stroke for stroke in self.found.strokes if stroke.skipped is None]

    @cached_property
    def latency_ms(self) -> LatencyMs:
        return LatencyMs.of([answer.latency_ms for answer in self.answers])

    @cached_property
    def last_dispatches(self) -> list[LastDispatch]:
        return measures.last_dispatches(self.done, self.found.evidence)

    @cached_property
    def notice_ms(self) -> LatencyMs:
        """Notice to the last batch sent there: the later of the function's record and the kernel's counters."""
        return LatencyMs.of([last.worst for last in self.last_dispatches])

    @cached_property
    def redispatch_ms(self) -> LatencyMs:
        return LatencyMs.of(measures.redispatches(self.done, self.found.evidence))

    @cached_property
    def recoveries(self) -> list[Recovery]:
        """One for each stroke, whether it happened or not."""
        return [measures.recovery_after(stroke.at_ms, self.answers) for stroke in self.found.strokes]

    @cached_property
    def recovery_ms(self) -> float:
        """The longest of all faults."""
        return max((recovery.recovery_ms for recovery in self.recoveries), default=0.0)

    @cached_property
    def bursts(self) -> list[tuple[float, float]]:
        """From when until when the load was larger than otherwise."""
        begun_ms = self.found.begun_ms
        return [(begun_ms + start * 1000, begun_ms + end * 1000) for start, end in self.plan.load.bursts()]

    @cached_property
    def disturbed(self) -> tuple[float, float] | None:
        """When the last burst began and ended; without a burst, twice the moment of the last fault."""
        at_ms = self.done[-1].at_ms if self.done else None
        return self.bursts[-1] if self.bursts else None if at_ms is None else (at_ms, at_ms)

    @cached_property
    def normal_ms(self) -> float | None:
        """From the end of the last burst (or the last fault) until latency is as before it for three seconds."""
        if self.disturbed is None:
            return None
        return measures.normal_after(self.disturbed[1], self.answers, usual_until_ms=self.disturbed[0])

    @cached_property
    def ok_again_ms(self) -> float | None:
        """From the end of the last burst (or the last fault) until `OK_AGAIN_SHARE` of all later jobs are `ok` in time."""
        if self.disturbed is None:
            return None
        return measures.ok_after(self.disturbed[1], self.answers, share=OK_AGAIN_SHARE, within_ms=SLA_MS)

    @cached_property
    def extra_attempts_share(self) -> float | None:
        return measures.extra_attempts_share(self.found.evidence.executions)

    @cached_property
    def ok_in_time_share(self) -> float:
        good = sum(answer.outcome == "ok" and answer.latency_ms <= SLA_MS for answer in self.answers)
        return good / self.jobs if self.jobs else 0.0

    @cached_property
    def workers_lost(self) -> int:
        return measures.workers_lost(self.found.evidence.executions)

    @cached_property
    def silent_after_ms(self) -> float | None:
        """The longest of all freezes."""
        frozen = [stroke for stroke in self.done if stroke.kind is Kind.FREEZE and stroke.role is Target.POD]
        return max((measures.silent_after(stroke, self.found.evidence) for stroke in frozen), default=None)

    @cached_property
    def back_in_rotation_ms(self) -> float | None:
        """The longest, from the end of a freeze or throttle to the first new batch sent there."""
        lasting = [stroke for stroke in self.done if stroke.kind in _LASTING and stroke.role is Target.POD]
        waits = [measures.back_in_rotation(stroke, self.found.evidence) for stroke in lasting]
        return max((wait for wait in waits if wait is not None), default=None)

    @cached_property
    def serving_again_ms(self) -> float | None:
        """The longest of all killed heads (else of clusters that were made larger, else of pods); None where one never served."""
        struck = [stroke for stroke in self.done if stroke.kind is Kind.KILL and stroke.role is Target.HEAD]
        struck = struck or [stroke for stroke in self.done if stroke.kind is Kind.SCALE]
        struck = struck or [s for s in self.done if s.kind in (Kind.KILL, Kind.NOTICE) and s.role is Target.POD]
        return _largest([measures.serving_again(stroke, self.found.evidence) for stroke in struck])

    @cached_property
    def slowed(self) -> list[Stroke]:
        """What took a pod's share away for a while: throttles and freezes."""
        return [s for s in self.done if s.kind in (Kind.THROTTLE, Kind.FREEZE) and s.role is Target.POD]

    @cached_property
    def share_halved_ms(self) -> float | None:
        """The longest of all throttles; None where a share never fell."""
        waits = [measures.share_halved_after(stroke, self.found.evidence) for stroke in self.done if stroke.kind is Kind.THROTTLE]
        return _largest(waits)

    @cached_property
    def share_back_ms(self) -> float | None:
        """The longest of all throttles and freezes; None where a share never came back."""
        return _largest([measures.share_back_after(stroke, self.found.evidence) for stroke in self.slowed])

    @cached_property
    def share_crossings(self) -> tuple[int, int] | None:
        """The most falls, and the most rises, of one throttled or frozen pod's share."""
        counts = [measures.share_crossings(stroke, self.found.evidence) for stroke in self.slowed]
        known = [count for count in counts if count is not None]
        return (max(falls for falls, _ in known), max(rises for _, rises in known)) if known else None

    @cached_property
    def share_at_return(self) -> float | None:
        """The largest of all freezes; None where a pod got nothing again."""
        frozen = [stroke for stroke in self.slowed if stroke.kind is Kind.FREEZE]
        return _largest([measures.share_at_return(stroke, self.found.evidence) for stroke in frozen])

    @cached_property
    def disturbed_p99_factor(self) -> float | None:
        """p99 of the jobs due during the lasting faults against those due in the 14 s before the first of them; the worst.

        The first seconds of a load do not count: cold processes would make any fault look harmless.
        """
        lasting = [stroke for stroke in self.done if stroke.kind in _LASTING and stroke.until_ms is not None]
        if not lasting:
            return None
        before = measures.percentile_between(self.answers, lasting[0].at_ms - CALM_MS, lasting[0].at_ms, 99)
        during = [
            measures.percentile_between(self.answers, stroke.at_ms, stroke.until_ms or stroke.at_ms, 99) for stroke in lasting
        ]
        known = [p99 for p99 in during if p99 is not None]
        return max(known) / before if known and before else None

    @cached_property
    def view_again_ms(self) -> float | None:
        """The longest of all faults of the control plane; None where a node was never told of again."""
        return _largest(
            [measures.view_again(self.found.view, stroke.at_ms) for stroke in self.done if stroke.role in _CONTROL_PLANE]
        )

    @cached_property
    def suspected_wrongly(self) -> int:
        """Nodes that counted as silent though no fault could have silenced them."""
        return len(measures.suspected_wrongly(self.found.suspected, self.done, self.found.evidence))

    @cached_property
    def old_processes_alive(self) -> int:
        return self.found.old_processes_alive

    def bars(self) -> list[Bar]:
        """Every bar of the plan, met or not."""
        return judge(self.plan.bars, self)

    def missed_bars(self) -> list[Bar]:
        return [bar for bar in self.bars() if not bar.met]

    def to_json(self) -> dict[str, Any]:
        lasts = self.last_dispatches
        return {
            "plan": self.plan.name,
            "seed": self.seed,
            "jobs": self.jobs,
            "outcomes": dict(self.outcomes),
            "lost": self.lost,
            "duplicated": self.duplicated,
            "latency_ms": _percentiles(self.latency_ms),
            "notice_to_last_dispatch_ms": _percentiles(self.notice_ms),
            "kill_to_redispatch_ms": _percentiles(self.redispatch_ms),
            "recovery_ms": round(self.recovery_ms, 1),
            "extra_attempts_share": _rounded(self.extra_attempts_share, 4),
            "faults": [self._fault(stroke, recovery) for stroke, recovery in zip(self.strokes, self.recoveries, strict=True)],
            "left_over_processes": self.left_over_processes,
            "bars": [bar.to_json() for bar in self.bars()],
            "wrong": self.wrong,
            "late": self.found.report.late,
            "ok_in_time_share": round(self.ok_in_time_share, 6),
            "load": {
                "rate_per_second": round(self.found.rate_per_second, 1),
                "sustained_per_second": _rounded(self.found.sustained_per_second),
                "seconds": round((self.found.ended_ms - self.found.begun_ms) / 1000, 1),
                "work_ms": self.plan.work_ms,
                "phases": [
                    {"seconds": phase.seconds, "per_second": round(phase.times * self.found.rate_per_second, 1)}
                    for phase in self.plan.load.phases
                ],
            },
            "notice_witnesses_ms": {
                name: _percentiles(LatencyMs.of([getattr(last, name) for last in lasts]))
                for name in ("executed", "wire", "headers")
            },
            "redispatches": len(measures.redispatches(self.done, self.found.evidence)),
            "normal_again_ms": _rounded(self.normal_ms),
            "ok_again_ms": _rounded(self.ok_again_ms),
            "serving_again_ms": _rounded(self.serving_again_ms),
            "back_in_rotation_ms": _rounded(self.back_in_rotation_ms),
            "share_halved_ms": _rounded(self.share_halved_ms),
            "share_back_ms": _rounded(self.share_back_ms),
            "share_falls": None if self.share_crossings is None else self.share_crossings[0],
            "share_rises": None if self.share_crossings is None else self.share_crossings[1],
            "share_at_return": _rounded(self.share_at_return, 3),
            "view_again_ms": _rounded(self.view_again_ms),
            "suspected_wrongly": self.suspected_wrongly,
            "config": self.plan.config or None,
            "retry": self.plan.retry,
            "workers_lost_to_jobs": self.workers_lost,
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    def _fault(self, stroke: Stroke, recovery: Recovery) -> dict[str, Any]:
        told: dict[str, Any] = {
            "at_ms": round(stroke.at_ms - self.found.begun_ms, 1),
            "kind": stroke.kind.value,
            "target": stroke.target,
        }
        if stroke.skipped is not None:
            return {**told, "skipped": stroke.skipped}
        if stroke.until_ms is not None:
            told["for_ms"] = round(stroke.until_ms - stroke.at_ms, 1)
        if stroke.how:
            told["how"] = stroke.how
        return {**told, "recovery_ms": round(recovery.recovery_ms, 1), "settled_ms": round(recovery.settled_ms, 1)}


def _largest(values: Sequence[float | None]) -> float | None:
    """None where there is none, or one of them is not known."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _percentiles(latency: LatencyMs) -> dict[str, float | None]:
    return {"p50": _rounded(latency.p50), "p99": _rounded(latency.p99), "max": _rounded(latency.max)}


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
