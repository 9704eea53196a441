"""The bars of a plan against what a run measured. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.chaos.plan import Bars

if TYPE_CHECKING:
    from deploy.chaos.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Bar:
    """One demand. `measured` None: nothing was observed for it, and then it is not met."""

    name: str
    wanted: str
    measured: float | str | None
    met: bool

    def text(self) -> str:
        """What was measured, for people."""
        if self.measured is None:
            return "not observed"
        if isinstance(self.measured, float):
            return f"{self.measured:,.0f}" if self.measured >= 1000 else f"{self.measured:.4g}"
        return str(self.measured)

    def to_json(self) -> dict[str, Any]:
        measured = round(self.measured, 4) if isinstance(self.measured, float) else self.measured
        return {"name": self.name, "wanted": self.wanted, "measured": measured, "met": self.met}


def judge(bars: Bars, verdict: Verdict) -> list[Bar]:
    """Every bar of the plan, those that hold for all plans first."""
    return [*_always(verdict), *_of_outcomes(bars, verdict), *_at_most(bars, verdict)]


def _always(verdict: Verdict) -> Iterator[Bar]:
    zeros: Mapping[str, int | None] = {
        "jobs lost": verdict.lost,
        "results duplicated": verdict.duplicated,
        "results that are not their job's": verdict.wrong,
        "processes left over": verdict.left_over_processes,
    }
    for name, count in zeros.items():
        if count is not None:
            yield Bar(name, "0", count, count == 0)
    for stroke in verdict.strokes:
        if stroke.skipped is not None:
            # Told as what it is, but no failure of the platform.
            yield Bar(f"{stroke.kind} of {stroke.target}", "done", f"skipped: {stroke.skipped}", True)


def _of_outcomes(bars: Bars, verdict: Verdict) -> Iterator[Bar]:
    others = sorted(set(verdict.outcomes) - set(bars.outcomes))
    yield Bar("outcomes", f"only {', '.join(bars.outcomes)}", ", ".join(others) or "as wanted", not others)
    if bars.ok_in_time_share is not None:
        measured = verdict.ok_in_time_share
        yield Bar("ok inside 10 s", f">= {bars.ok_in_time_share:.1%}", measured, measured >= bars.ok_in_time_share)
    if bars.quarantined is not None:
        count = verdict.outcomes.get("quarantined", 0)
        yield Bar("quarantined", f"{bars.quarantined}", count, count == bars.quarantined)


def _at_most(bars: Bars, verdict: Verdict) -> Iterator[Bar]:
    crossings = verdict.share_crossings
    limits: list[tuple[str, float | None, float | None]] = [
        ("job latency p99, ms", bars.job_p99_ms, verdict.latency_ms.p99),
        ("job latency max, ms", bars.job_max_ms, verdict.latency_ms.max),
        ("notice to last dispatch p99, ms", bars.notice_p99_ms, verdict.notice_ms.p99),
        ("notice to last dispatch max, ms", bars.notice_max_ms, verdict.notice_ms.max),
        ("kill to second dispatch p99, ms", bars.redispatch_p99_ms, verdict.redispatch_ms.p99),
        ("frozen pod gets something new, ms", bars.silent_after_ms, verdict.silent_after_ms),
        ("back in rotation after, ms", bars.back_in_rotation_ms, verdict.back_in_rotation_ms),
        ("successor serves after, ms", bars.serving_again_ms, verdict.serving_again_ms),
        ("extra attempts, share of jobs", bars.extra_attempts_share, verdict.extra_attempts_share),
        ("workers lost to jobs", bars.workers_lost, verdict.workers_lost),
        ("throttled pod's share below half after, ms", bars.share_halved_ms, verdict.share_halved_ms),
        ("its share back to 80 % after, ms", bars.share_back_ms, verdict.share_back_ms),
        ("falls of its share below half", bars.share_crossings, None if crossings is None else crossings[0]),
        ("rises of its share over half", bars.share_crossings, None if crossings is None else crossings[1]),
        ("its share in the first 4 s / undisturbed", bars.share_at_return, verdict.share_at_return),
        ("p99 during the fault / before", bars.disturbed_p99_factor, verdict.disturbed_p99_factor),
        ("99.9 % ok again after, ms", bars.ok_again_ms, verdict.ok_again_ms),
        ("latency normal again after, ms", bars.normal_again_ms, verdict.normal_ms),
        ("view whole again after, ms", bars.view_again_ms, verdict.view_again_ms),
        ("nodes that counted as silent and were not", bars.suspected_wrongly, verdict.suspected_wrongly),
        ("old processes alive", 0 if bars.serving_again_ms is not None else None, verdict.old_processes_alive),
    ]
    for name, limit, measured in limits:
        if limit is not None:
            yield Bar(name, f"<= {limit:g}", measured, measured is not None and measured <= limit)
