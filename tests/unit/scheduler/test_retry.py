"""What follows an unfinished batch: the poison job ends alone, and an eviction is nobody's fault."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.app_spec import Retries
from rayline.jobs import ContentType, Job
from rayline.results import Outcome
from scheduler.batch import ALWAYS, Batch, Cause, Death, Sent
from scheduler.retry import Again, Decision, Fate, GiveUp, Rules, Wait, decide, judge
from tests.unit.ingest.jobs import job

DEATH = Death("c/n1", 1, 0.0, alone=True)


def batch_of(jobs: list[Job], **fields: object) -> Batch:
    return Batch(batch_id="b", content_type=ContentType.MSGPACK, jobs=jobs, size_bytes=len(jobs), **fields)  # type: ignore[arg-type]


def rules(
    retries: Retries | None = None, *, sequential: bool = True, fate: Callable[[Death], Fate] = lambda _: Fate.OUTLIVED
) -> Rules:
    return Rules(retries=retries or Retries(), sequential=sequential, prefix="p", fate=fate)


def after(
    batch: Batch,
    cause: Cause,
    by: Rules | None = None,
    *,
    unfinished: list[Job] | None = None,
    death: Death = DEATH,
    sent: Sent | None = None,
) -> list[Decision]:
    jobs = batch.jobs if unfinished is None else unfinished
    return decide(batch, jobs, cause, by or rules(), node=death.node, sent=sent, death=death)


@given(st.integers(1, 300), st.data(), st.integers(1, 3), st.booleans())
def test_a_job_that_kills_its_worker_ends_alone_after_at_most_log2_and_its_kills_and_its_neighbours_run(
    size: int, data: st.DataObject, kills: int, elsewhere: bool
) -> None:
    jobs = [job(offset) for offset in range(size)]
    poison = data.draw(st.sampled_from(jobs))
    waiting, done, condemned, deaths = [batch_of(jobs)], [], [], 0
    while waiting:
        batch = waiting.pop()
        if poison not in batch.jobs:
            done += batch.jobs
            continue
        deaths += 1
        # Some of its neighbours were answered before.
        unfinished = [one for one in batch.jobs if one is poison or data.draw(st.booleans())]
        done += [one for one in batch.jobs if one not in unfinished]
        death = Death(f"c/n{deaths if elsewhere else 1}", 1, float(deaths), alone=batch.suspect and len(unfinished) == 1)
        for decision in after(batch, Cause.KILLED, rules(Retries(kills=kills)), unfinished=unfinished, death=death):
            if isinstance(decision, GiveUp):
                assert decision.outcome is Outcome.QUARANTINED
                condemned += decision.batch.jobs
            else:
                assert isinstance(decision, Again)
                assert decision.batch.suspect
                waiting.append(decision.batch)
    assert condemned == [poison]
    assert sorted(one.offset for one in done) == [one.offset for one in jobs if one is not poison]
    assert deaths <= max(2, ceil(log2(size)) + kills)


@given(st.integers(1, 200), st.data(), st.booleans())
def test_a_job_that_hangs_ends_alone_and_its_neighbours_run(size: int, data: st.DataObject, sequential: bool) -> None:
    jobs = [job(offset) for offset in range(size)]
    hanging = data.draw(st.sampled_from(jobs))
    waiting, done, given_up, hangs = [batch_of(jobs)], [], [], 0
    while waiting:
        batch = waiting.pop()
        if hanging not in batch.jobs:
            done += batch.jobs
            continue
        hangs += 1
        # One by one: what came before is answered.
        unfinished = batch.jobs[batch.jobs.index(hanging) :] if sequential else batch.jobs
        done += [one for one in batch.jobs if one not in unfinished]
        for decision in after(batch, Cause.HUNG, rules(sequential=sequential), unfinished=unfinished):
            if isinstance(decision, GiveUp):
                assert decision.outcome is Outcome.ERROR
                given_up += decision.batch.jobs
            else:
                waiting.append(decision.batch)
    assert given_up == [hanging]
    assert sorted(one.offset for one in done) == [one.offset for one in jobs if one is not hanging]
    assert hangs <= (2 if sequential else ceil(log2(size)) + 2)


@given(st.lists(st.sampled_from([Cause.EVICTED, Cause.REFUSED]), max_size=20))
def test_evictions_and_full_actors_never_count_against_the_job(causes: list[Cause]) -> None:
    batch = batch_of([job()])
    for number, cause in enumerate(causes):
        sent = Sent("c", f"n{number}", "1", batch.batch_id, 1)
        batch.trail = batch.trail.sent_to(sent)
        (decision,) = after(batch, cause, death=Death(f"c/n{number}", 1, 0.0, alone=False), sent=sent)
        assert isinstance(decision, Again)
        batch = decision.batch
    assert (batch.deaths, batch.timeouts, batch.errors) == ((), 0, 0)
    assert batch.evictions == batch.attempts == causes.count(Cause.EVICTED)
    assert batch.again == (Cause.EVICTED if Cause.EVICTED in causes else None)
    assert batch.avoid == {f"c/n{number}" for number in range(len(causes))}


def test_a_batch_evicted_more_often_than_allowed_ends_with_an_error_of_its_own() -> None:
    (decision,) = after(batch_of([job(), job(1)], evictions=2), Cause.EVICTED, rules(Retries(evictions=2)))
    assert isinstance(decision, GiveUp)
    assert (decision.outcome, decision.error_type) == (Outcome.ERROR, "rayline.EvictionsExceeded")


def test_nobody_is_condemned_before_its_nodes_outlived_their_workers() -> None:
    fates = {"c/n1": Fate.OUTLIVED, "c/n2": Fate.UNKNOWN}
    by = rules(Retries(kills=2), fate=lambda death: fates[death.node])
    deaths = tuple(Death(node, 1, 0.0, alone=True) for node in fates)
    (decision,) = after(batch_of([job()], deaths=deaths[:1], suspects=1), Cause.KILLED, by, death=deaths[1])
    assert isinstance(decision, Wait)
    fates["c/n2"] = Fate.LEFT
    released = judge(decision.batch, by)
    assert isinstance(released, Again)
    assert [death.node for death in released.batch.deaths] == ["c/n1"]
    # What is settled stays settled, whatever becomes of the node.
    fates["c/n1"] = Fate.LEFT
    assert released.batch.deaths[0].at == ALWAYS
    fates["c/n1"] = Fate.OUTLIVED
    (again,) = after(released.batch, Cause.KILLED, by, death=deaths[0])
    assert isinstance(again, GiveUp)
    assert again.outcome is Outcome.QUARANTINED


def test_who_died_in_company_only_is_not_condemned() -> None:
    company = tuple(Death("c/n1", 1, 0.0, alone=False) for _ in range(9))
    assert isinstance(judge(batch_of([job()], deaths=company, suspects=2), rules()), Again)


@pytest.mark.parametrize(("timeouts", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_a_job_that_hangs_alone_runs_as_often_as_the_budget_says(timeouts: int, attempts: int) -> None:
    batch, ran = batch_of([job()]), 1
    while isinstance(decision := after(batch, Cause.HUNG, rules(Retries(timeouts=timeouts)))[0], Again):
        batch = decision.batch
        ran += 1
    assert ran == attempts


@given(st.integers(1, 30), st.data(), st.sampled_from(list(Cause)), st.booleans())
def test_only_what_is_unfinished_runs_again_and_never_where_it_failed_first(
    size: int, data: st.DataObject, cause: Cause, sequential: bool
) -> None:
    jobs = [job(offset) for offset in range(size)]
    unfinished = data.draw(st.lists(st.sampled_from(jobs), unique_by=id, min_size=1))
    decisions = after(batch_of(jobs), cause, rules(Retries(errors=1), sequential=sequential), unfinished=unfinished)
    parts = [decision.batch for decision in decisions if isinstance(decision, Again)]
    assert sorted(one.offset for part in parts for one in part.jobs) == sorted(one.offset for one in unfinished)
    assert all(part.size_bytes == len(part.jobs) and DEATH.node in part.avoid for part in parts)
    assert len({part.batch_id for part in parts}) == len(parts)
