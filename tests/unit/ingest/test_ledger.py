"""The ledger: a result is published only with a commit that represents it, whatever ends when and whoever takes over."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest import ledger_codec
from ingest.ledger import Ledger, Plan
from rayline.errors import FormatError

RECORDS = 400
# Room for some 60 bits beyond the owner's name, so that the machine meets a full ledger.
TIGHT_CHARS = 4 * -(-(11 + ledger_codec.MAX_OWNER_BYTES + 8) // 3)


class Lane:
    """One owner of the partition: what it read, what ended, and the transaction it has open."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.under_way: list[int] = []
        self.ended: list[int] = []


class PartitionMachine(RuleBasedStateMachine):
    """A Kafka partition whose lane crashes, is replaced, and loses track of its transactions."""

    def __init__(self) -> None:
        super().__init__()
        numbers = random.Random(5)
        offsets, at = [], 0
        for _ in range(RECORDS):
            at += 1 if numbers.random() < 0.8 else numbers.randint(2, 9)
            offsets.append(at)
        self.offsets = offsets
        self.committed, self.metadata = 0, ""
        self.published: list[int] = []
        self.epoch = 0
        self.lane = self._new_lane()

    def _new_lane(self) -> Lane:
        self.epoch += 1
        name = "lane" + "x" * (self.epoch * 37 % 200)
        lane = Lane(name, Ledger(owner=name, committed=self.committed, metadata=self.metadata, max_chars=TIGHT_CHARS))
        self._commit(lane.ledger.plan(()))
        return lane

    def _commit(self, plan: Plan) -> None:
        assert len(plan.metadata) <= TIGHT_CHARS, "a commit that Kafka refuses"
        assert plan.frontier >= self.committed, "the frontier moved back"
        self.committed, self.metadata = plan.frontier, plan.metadata
        self.published += sorted(plan.accepted)

    @rule(count=st.integers(1, 60))
    def read(self, count: int) -> None:
        lane = self.lane
        for offset in [offset for offset in self.offsets if offset >= lane.ledger.position][:count]:
            if lane.ledger.read(offset):
                lane.under_way.append(offset)

    @rule()
    def the_reader_passes_a_gap(self) -> None:
        position = self.lane.ledger.position
        self.lane.ledger.skip_to(min((offset for offset in self.offsets if offset >= position), default=position + 3))

    @precondition(lambda self: self.lane.under_way)
    @rule(data=st.data())
    def jobs_end_in_any_order(self, data: st.DataObject) -> None:
        lane = self.lane
        some = data.draw(st.lists(st.sampled_from(lane.under_way), unique=True, max_size=40))
        lane.under_way = [offset for offset in lane.under_way if offset not in some]
        lane.ended += some

    @precondition(lambda self: self.lane.ended)
    @rule(fate=st.sampled_from(["committed", "aborted", "unknown_committed", "unknown_aborted", "died_before", "died_after"]))
    def publish(self, fate: str) -> None:
        lane = self.lane
        plan = lane.ledger.plan(lane.ended)
        assert plan.accepted <= set(lane.ended)
        if fate in ("committed", "unknown_committed", "died_after"):
            self._commit(plan)
        if fate.startswith("died"):
            self.lane = self._new_lane()
        elif fate == "committed":
            lane.ledger.confirm(plan)
            lane.ended = [offset for offset in lane.ended if offset not in plan.accepted]
        else:
            lane.ledger.reconcile(self.committed, self.metadata)
            lane.ended = [offset for offset in lane.ended if not lane.ledger.is_published(offset)]

    @rule()
    def another_lane_takes_over(self) -> None:
        self.lane = self._new_lane()

    @invariant()
    def nothing_is_published_twice(self) -> None:
        assert len(self.published) == len(set(self.published))

    @invariant()
    def what_is_committed_says_exactly_what_is_published(self) -> None:
        said = set((ledger_codec.decode(self.metadata).published + self.committed).tolist())
        said |= {offset for offset in self.offsets if offset < self.committed}
        assert said == set(self.published)

    @invariant()
    def the_lowest_unpublished_job_always_fits_once_it_ended(self) -> None:
        lane = self.lane
        if lane.ended and not lane.under_way:
            assert min(lane.ended) in lane.ledger.plan(lane.ended).accepted

    def teardown(self) -> None:
        for _ in range(2 * RECORDS):
            self.read(RECORDS)
            self.lane.ended += self.lane.under_way
            self.lane.under_way = []
            if not self.lane.ended:
                break
            self.publish("committed")
        assert sorted(self.published) == self.offsets, "lost"


TestPartition = PartitionMachine.TestCase
TestPartition.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


def test_the_frontier_moves_over_gaps_by_what_was_read() -> None:
    ledger = Ledger(owner="a", committed=10)
    for offset in (12, 15, 40):
        assert ledger.read(offset)
    assert ledger.plan([12]).frontier == 15
    assert ledger.plan([15, 40]).frontier == 12
    assert ledger.plan([12, 15, 40]).frontier == 41


def test_the_committed_offset_follows_a_reader_past_what_does_not_exist() -> None:
    ledger = Ledger(owner="a", committed=0)
    ledger.read(0)
    ledger.skip_to(5)
    assert not ledger.trails, "a job is under way"
    ledger.confirm(ledger.plan([0]))
    assert (ledger.frontier, ledger.trails) == (5, False)
    ledger.skip_to(7)
    assert ledger.trails
    ledger.confirm(ledger.plan(()))
    assert (ledger.frontier, ledger.trails) == (7, False)
    ledger.skip_to(3)
    assert ledger.position == 7


def test_a_record_delivered_again_is_not_work_again() -> None:
    ledger = Ledger(owner="a", committed=0)
    assert [ledger.read(offset) for offset in (0, 1, 1, 0, 2)] == [True, True, False, False, True]


def test_what_does_not_fit_waits_and_the_lowest_go_first() -> None:
    ledger = Ledger(owner="a", committed=0)
    offsets = list(range(0, 2 * 60_000, 2))
    for offset in offsets:
        ledger.read(offset)
    ended = [offset for offset in random.Random(1).sample(offsets, 30_000) if offset > 0]
    plan = ledger.plan(ended)
    assert 0 < len(plan.accepted) < len(ended)
    assert max(plan.accepted) <= min(set(ended) - plan.accepted)
    assert len(plan.metadata) <= ledger_codec.MAX_CHARS
    assert ledger.plan([*ended, 0]).frontier > 0


def test_a_successor_with_the_longest_name_can_write_a_full_ledger() -> None:
    first = Ledger(owner="a", committed=0)
    numbers = random.Random(2)
    for offset in range(40_000):
        first.read(offset)
    plan = first.plan([offset for offset in range(1, 40_000) if numbers.random() < 0.5])
    assert len(plan.accepted) < 19_000, "the ledger is not full"
    successor = Ledger(owner="z" * ledger_codec.MAX_OWNER_BYTES, committed=plan.frontier, metadata=plan.metadata)
    claim = successor.plan(())
    assert len(claim.metadata) <= ledger_codec.MAX_CHARS
    assert ledger_codec.decode(claim.metadata).published.tolist() == ledger_codec.decode(plan.metadata).published.tolist()


def test_a_job_behind_a_gap_that_no_reader_would_accept_waits() -> None:
    ledger = Ledger(owner="a", committed=0)
    far = ledger_codec.MAX_SPAN_BITS + 5
    ledger.read(0)
    ledger.read(far)
    assert ledger.plan([far]).accepted == frozenset()
    assert ledger.plan([0, far]).frontier == far + 1


@given(st.sets(st.integers(0, 300), min_size=1), st.integers(0, 300))
def test_after_a_lost_transaction_what_kafka_says_counts(published: set[int], committed: int) -> None:
    ledger = Ledger(owner="a", committed=0)
    for offset in range(301):
        ledger.read(offset)
    beyond = sorted(offset for offset in published if offset > committed)
    theirs = Ledger(owner="a", committed=committed)
    for offset in range(committed, 301):
        theirs.read(offset)
    plan = theirs.plan(beyond)
    ledger.reconcile(plan.frontier, plan.metadata)
    assert {offset for offset in range(301) if ledger.is_published(offset)} == set(range(committed)) | set(beyond)
    assert ledger.position == 301


def test_metadata_that_is_not_a_ledger_is_refused() -> None:
    with pytest.raises(FormatError):
        Ledger(owner="a", committed=0, metadata="checkpoint-17")
