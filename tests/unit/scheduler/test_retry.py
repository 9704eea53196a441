"""What follows an unfinished batch: the poison job ends alone, and an eviction is nobody's fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.app_spec import Retries
from rayline.jobs import ContentType, Job
from rayline.results import Outcome
from scheduler.batch import Batch, NodeIncarnation
from scheduler.retry import Again, Cause, GiveUp, decide
from tests.unit.ingest.jobs import job

NODE: NodeIncarnation = ("c/n1", 1)


def batch_of(jobs: list[Job], **fields: object) -> Batch:
    return Batch(batch_id="b", content_type=ContentType.MSGPACK, jobs=jobs, size_bytes=len(jobs), **fields)  # type: ignore[arg-type]


def after(
    batch: Batch,
    cause: Cause,
    *,
    unfinished: list[Job] | None = None,
    node: NodeIncarnation = NODE,
    retries: Retries | None = None,
    evicted: frozenset[NodeIncarnation] = frozenset(),
) -> Again | GiveUp:
    return decide(
        batch,
        batch.jobs if unfinished is None else unfinished,
        cause,
        node=node,
        retries=retries or Retries(),
        prefix="p",
        evicted=evicted.__contains__,
    )


@given(st.integers(1, 200), st.data(), st.sampled_from([Cause.KILLED, Cause.HUNG]))
def test_the_poison_job_ends_alone_and_its_neighbours_run_in_few_more_batches(
    size: int, data: st.DataObject, cause: Cause
) -> None:
    jobs = [job(offset) for offset in range(size)]
    poison = data.draw(st.sampled_from(jobs))
    waiting, done, dispatches = [batch_of(jobs)], [], 0
    given_up: list[Job] = []
    while waiting:
        batch = waiting.pop()
        dispatches += 1
        if poison not in batch.jobs:
            done += batch.jobs
            continue
        decision = after(batch, cause, node=(f"c/n{dispatches}", 1))
        if isinstance(decision, GiveUp):
            given_up += batch.jobs
            assert decision.outcome is (Outcome.QUARANTINED if cause is Cause.KILLED else Outcome.ERROR)
        else:
            assert sorted(one.offset for part in decision.batches for one in part.jobs) == [one.offset for one in batch.jobs]
            waiting += decision.batches
    assert given_up == [poison]
    assert sorted(one.offset for one in done) == [one.offset for one in jobs if one is not poison]
    assert dispatches <= 2 * (size - 1).bit_length() + 2


@given(st.lists(st.sampled_from([Cause.EVICTED, Cause.BUSY]), max_size=20))
def test_evictions_and_full_actors_never_count_against_the_job(causes: list[Cause]) -> None:
    batch = batch_of([job()])
    for number, cause in enumerate(causes):
        decision = after(batch, cause, node=(f"c/n{number}", 1))
        assert isinstance(decision, Again)
        (batch,) = decision.batches
    assert (batch.blamed, batch.timeouts, batch.errors) == ((), 0, 0)
    assert batch.evictions == causes.count(Cause.EVICTED)
    assert batch.avoid == {f"c/n{number}" for number in range(len(causes))}


def test_a_batch_evicted_more_often_than_allowed_ends_with_an_error_of_its_own() -> None:
    retries = Retries(evictions=2)
    batch = batch_of([job(), job(1)], evictions=2)
    decision = after(batch, Cause.EVICTED, retries=retries)
    assert isinstance(decision, GiveUp)
    assert (decision.outcome, decision.error_type) == (Outcome.ERROR, "rayline.EvictionsExceeded")


def test_a_death_with_its_node_is_taken_back_once_the_eviction_is_known() -> None:
    retries = Retries(kills=2)
    first = after(batch_of([job()]), Cause.KILLED, node=("c/n1", 1), retries=retries)
    assert isinstance(first, Again)
    (once,) = first.batches
    assert once.blamed == (("c/n1", 1),)
    second = after(once, Cause.KILLED, node=("c/n2", 1), retries=retries, evicted=frozenset({("c/n1", 1)}))
    assert isinstance(second, Again)
    third = after(second.batches[0], Cause.KILLED, node=("c/n3", 1), retries=retries, evicted=frozenset({("c/n1", 1)}))
    assert isinstance(third, GiveUp)
    assert third.outcome is Outcome.QUARANTINED


@pytest.mark.parametrize(("timeouts", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_a_job_that_hangs_alone_runs_as_often_as_the_budget_says(timeouts: int, attempts: int) -> None:
    batch, ran = batch_of([job()]), 1
    while isinstance(decision := after(batch, Cause.HUNG, retries=Retries(timeouts=timeouts)), Again):
        (batch,) = decision.batches
        ran += 1
    assert ran == attempts


@given(st.integers(1, 30), st.data(), st.sampled_from(list(Cause)))
def test_only_what_is_unfinished_runs_again_and_never_where_it_failed_first(size: int, data: st.DataObject, cause: Cause) -> None:
    jobs = [job(offset) for offset in range(size)]
    unfinished = data.draw(st.lists(st.sampled_from(jobs), unique_by=id, min_size=1))
    decision = after(batch_of(jobs), cause, unfinished=unfinished, retries=Retries(errors=1))
    assert isinstance(decision, Again)
    assert [one for part in decision.batches for one in part.jobs] == unfinished
    assert all(part.size_bytes == len(part.jobs) and NODE[0] in part.avoid for part in decision.batches)
    assert len({part.batch_id for part in decision.batches}) == len(decision.batches)
