"""What an earlier owner of a partition had on trial when it ended."""

from __future__ import annotations

import pytest

from rayline.app_spec import AppSpec
from rayline.jobs import ContentType
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.suspects import Trial
from scheduler.batch import Batch, Cause, Death, Sent, Trail
from scheduler.retry import Again
from scheduler.trials import Trials
from scheduler.view import View
from tests.unit.ingest.jobs import job

SPEC = AppSpec("app", "1", "/", "m:f")
SENT = Sent("c", "n", "1", "b-1", 1)


def on_trial(*, deaths: int) -> Batch:
    """One job, sent by somebody else to an actor whose instance was `i`."""
    known = tuple(Death("c/n", 1, 0.0, alone=True) for _ in range(deaths))
    batch = Batch("b", ContentType.MSGPACK, [job(1)], 1, deaths=known, suspects=1, trial=Trial("c/n", 1, "i", 1))
    batch.trail = Trail().sent_to(SENT)
    return batch


@pytest.mark.parametrize(("instance", "cause"), [("another", Cause.KILLED), ("i", None)])
def test_the_attempt_that_was_under_way_ended_as_its_actor_did(instance: str, cause: Cause | None) -> None:
    view = View()
    actor = ActorEndpoint("app", "1", "a", "h", 1, 2, instance)
    view.apply([NodeReport("c", "n", 1, 1, NodeState.READY, 1.0, actors=(actor,))], 10.0)
    trials = Trials(view=view, prefix="p")
    (decision,) = trials.reopen(on_trial(deaths=0), trials.rules(SPEC, 10.0), 10.0)
    assert isinstance(decision, Again)
    assert [(one.sent.node, one.cause) for one in decision.batch.trail.tried] == [("n", cause)]


def test_a_job_that_is_not_sent_again_knows_where_it_was_sent_last() -> None:
    view = View()
    view.apply([NodeReport("c", "n", 1, 1, NodeState.READY, 1.0, actors=())], 10.0)
    trials = Trials(view=view, prefix="p")
    (decision,) = trials.reopen(on_trial(deaths=SPEC.retries.kills), trials.rules(SPEC, 10.0), 20.0)
    assert not isinstance(decision, Again)
    last = decision.batch.trail.last
    assert last is not None
    assert (last.cluster, last.node, decision.batch.trail.tried[-1].cause) == ("c", "n", Cause.KILLED)
