"""What a chaos run found: pure arithmetic over the answers, and the form for machines.

Two clocks matter, and both are this machine's: a job *arrives* when it was due (not when it could be produced, so that an
outage of the broker counts), and is *answered* at the append time of its first result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.checker import LatencyMs, Report

SLOW_MS: Final = 1_000.0
# An outage may be longer than what is left of a job's SLA; it must never look like an error of the job.
_ALLOWED_OUTCOMES: Final = frozenset({"ok", "deadline_exceeded"})


@dataclass(frozen=True, slots=True)
class Answer:
    """First result of one job: the job's partition, when it arrived and when it was answered (epoch milliseconds)."""

    partition: int
    arrived_ms: float
    answered_ms: float


@dataclass(frozen=True, slots=True)
class Stroke:
    """A fault as it happened; `target` is the process that it hit."""

    at_ms: float
    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """After one fault. `recovery_ms`: until every partition had answered a job that arrived after it. `settled_ms`: until the
    last job that took over a second, of those that arrived before every partition had recovered, was answered (0: none did)."""

    recovery_ms: float
    settled_ms: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`lost`, `duplicated` and `outcomes` are the checker's."""

    plan: str
    seed: int
    jobs: int
    outcomes: Mapping[str, int]
    lost: int
    duplicated: int
    wrong: int
    latency_ms: LatencyMs
    strokes: Sequence[Stroke]
    recoveries: Sequence[Recovery]
    begun_ms: float
    left_over_processes: int

    @classmethod
    def of(
        cls,
        *,
        plan: str,
        seed: int,
        report: Report,
        answers: Sequence[Answer],
        strokes: Sequence[Stroke],
        begun_ms: float,
        left_over_processes: int,
    ) -> Verdict:
        return cls(
            plan=plan,
            seed=seed,
            jobs=report.jobs,
            outcomes=report.outcomes,
            lost=report.lost,
            duplicated=report.duplicated + report.unknown,
            wrong=report.wrong_payload + report.mismatched_ids,
            latency_ms=LatencyMs.of([answer.answered_ms - answer.arrived_ms for answer in answers]),
            strokes=strokes,
            recoveries=[recovery_after(stroke.at_ms, answers) for stroke in strokes],
            begun_ms=begun_ms,
            left_over_processes=left_over_processes,
        )

    @property
    def recovery_ms(self) -> float:
        """The longest of all faults."""
        return max((recovery.recovery_ms for recovery in self.recoveries), default=0.0)

    def missed_bars(self) -> list[str]:
        """What must hold whatever happens, and did not; empty when all is well."""
        bars = [
            (self.lost == 0, f"{self.lost} job(s) lost"),
            (self.duplicated == 0, f"{self.duplicated} result(s) duplicated"),
            (self.wrong == 0, f"{self.wrong} result(s) that are not their job's"),
            (set(self.outcomes) <= _ALLOWED_OUTCOMES, f"a fault became the fault of a job: {dict(self.outcomes)}"),
            (self.left_over_processes == 0, f"{self.left_over_processes} process(es) left behind"),
        ]
        return [sentence for kept, sentence in bars if not kept]

    def to_json(self) -> dict[str, Any]:
        latency = self.latency_ms
        return {
            "plan": self.plan,
            "seed": self.seed,
            "jobs": self.jobs,
            "outcomes": dict(self.outcomes),
            "lost": self.lost,
            "duplicated": self.duplicated,
            "latency_ms": {
                name: _round(value) for name, value in (("p50", latency.p50), ("p99", latency.p99), ("max", latency.max))
            },
            "recovery_ms": round(self.recovery_ms, 1),
            "faults": [
                {
                    "at_ms": round(stroke.at_ms - self.begun_ms, 1),
                    "kind": stroke.kind,
                    "target": stroke.target,
                    "recovery_ms": round(recovery.recovery_ms, 1),
                    "settled_ms": round(recovery.settled_ms, 1),
                }
                for stroke, recovery in zip(self.strokes, self.recoveries, strict=True)
            ],
            "left_over_processes": self.left_over_processes,
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")


def recovery_after(fault_ms: float, answers: Sequence[Answer]) -> Recovery:
    """How long a fault at `fault_ms` was felt; partitions without a job after it count for nothing."""
    first_after: dict[int, float] = {}
    for answer in answers:
        if answer.arrived_ms >= fault_ms:
            first_after[answer.partition] = min(answer.answered_ms, first_after.get(answer.partition, answer.answered_ms))
    recovered_ms = max(first_after.values(), default=fault_ms)
    slow = [
        answer.answered_ms
        for answer in answers
        if fault_ms <= answer.answered_ms
        and answer.arrived_ms <= recovered_ms
        and answer.answered_ms - answer.arrived_ms > SLOW_MS
    ]
    return Recovery(recovery_ms=recovered_ms - fault_ms, settled_ms=max(slow, default=fault_ms) - fault_ms)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
