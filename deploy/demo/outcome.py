"""What came out of a demo: the numbers, the bars they must reach, the form for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.checker import Report
from deploy.demo.accuracy import character_accuracy
from deploy.demo.tally import Tally, percentile

MAX_LATENCY_MS: Final = 10_000.0
MIN_ACCURACY: Final = 0.95


@dataclass(frozen=True, slots=True)
class Outcome:
    """`lost`, `duplicated` and `outcomes` are the checker's counts; latencies are those of a read_committed reader."""

    jobs: int
    outcomes: Mapping[str, int]
    lost: int
    duplicated: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    accuracy: float
    evictions: int
    retries: int
    seconds: float

    @classmethod
    def of(cls, tally: Tally, report: Report, *, truths: Mapping[str, str], evictions: int, seconds: float) -> Outcome:
        """A job that was not answered, or not with `ok`, counts as nothing read."""
        latencies_ms = [answer.latency_ms for answer in tally.answers.values()]
        read = {job_id: answer.result.feature() or {} for job_id, answer in tally.answers.items()}
        pairs = [(truth, read.get(job_id, {}).get("text", "")) for job_id, truth in truths.items()]
        return cls(
            jobs=report.jobs,
            outcomes=report.outcomes,
            lost=report.lost,
            duplicated=report.duplicated + report.unknown,
            p50_ms=percentile(latencies_ms, 0.50),
            p99_ms=percentile(latencies_ms, 0.99),
            max_ms=max([*latencies_ms, report.latency_ms.max or 0.0]),
            accuracy=character_accuracy(pairs),
            evictions=evictions,
            retries=tally.retries,
            seconds=seconds,
        )

    def missed_bars(self) -> list[str]:
        """What the demo promises and did not keep, one sentence each; empty when all is well."""
        bars = [
            (self.lost == 0, f"{self.lost} job(s) lost, 0 allowed"),
            (self.duplicated == 0, f"{self.duplicated} result(s) duplicated, 0 allowed"),
            (set(self.outcomes) <= {"ok"}, f"not every outcome is ok: {dict(self.outcomes)}"),
            (self.max_ms <= MAX_LATENCY_MS, f"slowest result {self.max_ms / 1000:.1f} s, {MAX_LATENCY_MS / 1000:.0f} s allowed"),
            (self.accuracy >= MIN_ACCURACY, f"character accuracy {self.accuracy:.1%}, {MIN_ACCURACY:.0%} wanted"),
            (self.evictions > 0, "no pod was evicted"),
        ]
        return [sentence for kept, sentence in bars if not kept]

    def to_json(self) -> dict[str, Any]:
        return {
            "jobs": self.jobs,
            "outcomes": dict(self.outcomes),
            "lost": self.lost,
            "duplicated": self.duplicated,
            "latency_ms": {"p50": round(self.p50_ms, 1), "p99": round(self.p99_ms, 1), "max": round(self.max_ms, 1)},
            "accuracy": round(self.accuracy, 5),
            "evictions": self.evictions,
            "retries": self.retries,
            "seconds": round(self.seconds, 2),
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")
