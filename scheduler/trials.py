"""Batches under which workers died, while it is not known yet what their nodes' fate was. Pure; time comes in as an argument."""

from __future__ import annotations

from typing import Final

from rayline.app_spec import AppSpec, Call
from rayline.reports import NodeState
from scheduler.batch import ALWAYS, Batch, Cause, Death
from scheduler.retry import Again, Decision, Fate, Rules, Wait, decide, judge
from scheduler.view import View

# A node is heard of, or silent, by then: what is not known about it will not be.
NEWS_SECONDS: Final = 5.0


class Trials:
    """Knows from the view whether a node outlived the worker that died there, and what became of another lane's suspects.

    Owns nothing: batches that must wait for news are the dispatcher's.
    """

    def __init__(self, *, view: View, prefix: str) -> None:
        self._view = view
        self._prefix = prefix

    def rules(self, spec: AppSpec, now: float) -> Rules:
        """What `decide` and `judge` depend on at `now` (monotonic seconds)."""
        return Rules(
            retries=spec.retries,
            sequential=spec.call is Call.JOB,
            prefix=self._prefix,
            fate=lambda death: self.fate(death, now),
        )

    def fate(self, death: Death, now: float) -> Fate:
        """Whether the node outlived the worker that died there."""
        if death.at == ALWAYS:
            return Fate.OUTLIVED
        known = self._view.get(death.node)
        if known is None or known.report.incarnation != death.incarnation or known.report.state is not NodeState.READY:
            return Fate.LEFT
        if known.heard > death.at:
            return Fate.OUTLIVED
        if now - death.at <= NEWS_SECONDS:
            return Fate.UNKNOWN
        return Fate.LEFT if self._view.suspect(death.node, now) else Fate.OUTLIVED

    def reopen(self, batch: Batch, rules: Rules, now: float) -> list[Decision]:
        """What is known by now of a batch that was held back: condemned, or an earlier owner's suspects on trial."""
        trial = batch.trial
        if trial is None:
            return [judge(batch, rules)]
        known = self._view.get(trial.node)
        if known is None or known.report.actors is None:
            if now - batch.jobs[0].arrived < NEWS_SECONDS:
                return [Wait(batch)]
        elif known.report.incarnation == trial.incarnation and known.report.state is NodeState.READY:
            actors = {actor.instance for actor in known.report.actors}
            if trial.instance not in actors:
                death = Death(trial.node, trial.incarnation, now, alone=trial.jobs == 1)
                return decide(batch, batch.jobs, Cause.KILLED, rules, node=trial.node, sent=batch.trail.last, death=death)
        batch.trial = None
        return [judge(batch, rules)] if len(batch.jobs) == 1 else [Again(batch)]
