"""A partition's state: every job that was read is under way or ended until published, and the bytes held say so."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.ledger import Ledger
from ingest.partition import PartitionState
from ingest.records import Ended
from rayline.jobs import Job
from rayline.results import Outcome
from scheduler.batch import Trail
from tests.unit.ingest.jobs import job

NO_LIMIT = 1 << 40


def ended(one: Job, value: bytes | None = b"feature") -> Ended:
    return Ended(one, Outcome.OK, value, None, None, Trail(), 0.0)


def read(state: PartitionState, offset: int, **fields: object) -> Job:
    assert state.ledger.read(offset)
    one = job(offset, **fields)  # type: ignore[arg-type]
    state.take(one)
    return one


class StateMachine(RuleBasedStateMachine):
    """Jobs come, end, end again, and are published or not."""

    def __init__(self) -> None:
        super().__init__()
        self.state = PartitionState(ledger=Ledger(owner="a", committed=0))
        self.under_way: dict[int, Job] = {}
        self.waiting: dict[int, Ended] = {}
        self.published: set[int] = set()
        self.committed, self.metadata = 0, ""

    @rule(gap=st.integers(0, 3), payload=st.binary(max_size=50), key=st.one_of(st.none(), st.binary(max_size=20)))
    def a_job_is_read(self, gap: int, payload: bytes, key: bytes | None) -> None:
        one = read(self.state, self.state.ledger.position + gap, payload=payload, key=key, headers=(("h", b"123"),))
        self.under_way[one.offset] = one

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), value=st.one_of(st.none(), st.binary(max_size=30)))
    def a_job_ends(self, data: st.DataObject, value: bytes | None) -> None:
        one = self.under_way.pop(data.draw(st.sampled_from(sorted(self.under_way))))
        self.waiting[one.offset] = ended(one, value)
        self.state.end([self.waiting[one.offset], ended(one)])
        assert self.state.waiting == len(self.waiting), "a late answer counted"

    @rule(offset=st.integers(0, 50))
    def a_job_of_an_earlier_takeover_ends(self, offset: int) -> None:
        self.state.end([ended(job(offset))])
        assert self.state.waiting == len(self.waiting)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_feature_turns_out_too_large(self, data: st.DataObject) -> None:
        one = self.waiting[data.draw(st.sampled_from(sorted(self.waiting)))]
        self.state.replace_value(one, error_type="T", error_message="m")
        assert (one.outcome, one.value, one.error_type) == (Outcome.ERROR, None, "T")

    @rule(
        most=st.integers(1, 5), most_bytes=st.sampled_from([1, 60, NO_LIMIT]), fate=st.sampled_from(["done", "lost", "unknown"])
    )
    def a_transaction(self, most: int, most_bytes: int, fate: str) -> None:
        share = self.state.share(most, most_bytes)
        assert (share is None) == (not self.waiting)
        if share is None:
            return
        assert len(share.ended) <= most
        assert len(share.ended) == 1 or sum(one.held_bytes for one in share.ended) <= most_bytes
        assert {one.job.offset for one in share.ended} == share.plan.accepted
        if fate != "lost":
            self.committed, self.metadata = share.plan.frontier, share.plan.metadata
            self.published |= share.plan.accepted
            for offset in share.plan.accepted:
                del self.waiting[offset]
        if fate == "done":
            self.state.published(share)
        else:
            self.state.reconcile(self.committed, self.metadata)

    @invariant()
    def nothing_is_forgotten_nor_counted_twice(self) -> None:
        state = self.state
        assert (state.under_way, state.waiting) == (len(self.under_way), len(self.waiting))
        jobs = [*self.under_way.values(), *(one.job for one in self.waiting.values())]
        held = sum(len(one.payload) + len(one.key or b"") + len("h123") for one in jobs)
        assert state.held_bytes == held + sum(len(one.value or b"") for one in self.waiting.values())


TestState = StateMachine.TestCase
TestState.settings = settings(max_examples=80, stateful_step_count=30, deadline=None, derandomize=True)


def test_a_full_ledger_takes_the_lowest_offsets_whenever_their_jobs_ended() -> None:
    state = PartitionState(ledger=Ledger(owner="a", committed=0))
    jobs = [read(state, offset) for offset in range(0, 80_000, 4)]
    late = jobs[1:]
    random.Random(3).shuffle(late)
    for one in late:
        state.end([ended(one)])
    while (share := state.share(500, NO_LIMIT)) is not None:
        state.published(share)
    assert state.waiting > 0, "the ledger is not full"
    state.end([ended(jobs[0])])
    while (share := state.share(500, NO_LIMIT)) is not None:
        state.published(share)
    assert (state.waiting, state.held_bytes, state.ledger.frontier) == (0, 0, state.ledger.position)
