"""The batcher: bounds of every batch, time of every job in it, and nothing lost between."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.batcher import SLACK_MARGIN_SECONDS, Batcher, Closed
from rayline.app_spec import Batching
from rayline.jobs import ContentType, Job
from tests.unit.ingest.jobs import job

KINDS = list(ContentType)


@dataclass
class Driven:
    """A batcher driven as a lane does: due batches are taken before time passes them."""

    batcher: Batcher
    now: float = 0.0
    out: list[tuple[float, Closed]] = field(default_factory=list)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.batcher.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            self.out += [(self.now, closed) for closed in self.batcher.due(self.now)]
        self.now = end

    def add(self, added: Job) -> None:
        closed = self.batcher.add(added, self.now)
        if closed is not None:
            self.out.append((self.now, closed))
        self.pass_time(0.0)


arrivals = st.lists(
    st.tuples(
        st.floats(0, 0.05),  # seconds since the one before
        st.integers(1, 120),  # payload bytes
        st.sampled_from(KINDS),
        st.one_of(st.none(), st.floats(0, 3)),  # seconds to the deadline
    ),
    max_size=80,
)
limits = st.builds(Batching, max_jobs=st.integers(1, 12), max_bytes=st.integers(1, 300), linger_ms=st.floats(0, 100))


@given(arrivals, limits, st.floats(0, 1))
def test_every_batch_is_within_its_bounds_and_every_job_leaves_once_in_time(
    jobs: list[tuple[float, int, ContentType, float | None]], batching: Batching, service: float
) -> None:
    driven = Driven(Batcher(batching))
    driven.batcher.expect_service(service)
    added: list[tuple[float, Job]] = []
    for offset, (pause, size, kind, slack) in enumerate(jobs):
        driven.pass_time(pause)
        one = job(offset, payload=bytes(size), content_type=kind, expires=1e9 if slack is None else driven.now + slack)
        added.append((driven.now, one))
        driven.add(one)
    driven.pass_time(10.0)

    left_at: dict[int, float] = {}
    for at, closed in driven.out:
        assert 0 < len(closed.jobs) <= batching.max_jobs
        assert closed.size_bytes == sum(len(one.payload) for one in closed.jobs)
        assert closed.size_bytes <= batching.max_bytes or len(closed.jobs) == 1
        assert len({one.content_type for one in closed.jobs}) == 1
        left_at |= {one.offset: at for one in closed.jobs}
    for kind in KINDS:
        order = [one.offset for _, closed in driven.out for one in closed.jobs if one.content_type is kind]
        assert order == [one.offset for _, one in added if one.content_type is kind]
    for at, one in added:
        assert left_at[one.offset] <= at + batching.linger_ms / 1000 + 1e-9
        in_time = one.expires - service - SLACK_MARGIN_SECONDS
        assert left_at[one.offset] <= max(at, in_time) + 1e-9


def test_a_tight_deadline_closes_the_batch_of_all_that_wait_with_it() -> None:
    driven = Driven(Batcher(Batching(max_jobs=100, linger_ms=60_000)))
    driven.batcher.expect_service(0.5)
    driven.add(job(0))
    driven.add(job(1, expires=2.0))
    driven.pass_time(30)
    ((at, closed),) = driven.out
    assert at == pytest.approx(2.0 - 0.5 - SLACK_MARGIN_SECONDS)
    assert [one.offset for one in closed.jobs] == [0, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(KINDS)), max_size=40), st.sets(st.integers(0, 3)))
def test_jobs_of_partitions_that_went_are_forgotten_and_no_other(jobs: list[tuple[int, ContentType]], ours: set[int]) -> None:
    batcher = Batcher(Batching(max_jobs=1_000, max_bytes=1_000_000))
    for offset, (partition, kind) in enumerate(jobs):
        assert batcher.add(job(offset, partition=partition, content_type=kind), 0.0) is None
    batcher.retain({("app.requests", partition) for partition in ours})
    left = batcher.due(float("inf"))
    assert sorted(one.offset for closed in left for one in closed.jobs) == [
        offset for offset, (partition, _) in enumerate(jobs) if partition in ours
    ]
    assert all(closed.size_bytes == len(closed.jobs) for closed in left)
    assert batcher.next_due() is None


@pytest.mark.parametrize("smaller", [Batching(max_jobs=3), Batching(max_bytes=4), Batching(max_jobs=5)])
def test_a_limit_that_what_is_open_has_reached_closes_it_at_once(smaller: Batching) -> None:
    batcher = Batcher(Batching(max_jobs=100))
    for offset in range(5):
        assert batcher.add(job(offset), 7.0) is None
    batcher.update(smaller)
    assert batcher.next_due() == 7.0
    ((closed),) = batcher.due(7.0)
    assert [one.offset for one in closed.jobs] == [0, 1, 2, 3, 4]
    assert batcher.next_due() is None


def test_what_is_open_lingers_as_long_as_holds_now_from_its_first_job_on() -> None:
    batcher = Batcher(Batching(max_jobs=100, linger_ms=10_000))
    batcher.add(job(0), 1.0)
    batcher.add(job(1), 2.0)
    seen = [batcher.next_due()]
    for linger_ms in (3_000, 500, 20_000):
        batcher.update(Batching(max_jobs=100, linger_ms=linger_ms))
        seen.append(batcher.next_due())
    assert seen == [11.0, 4.0, 1.5, 21.0]


def test_what_is_open_keeps_the_margin_that_holds_now_before_its_first_deadline() -> None:
    batcher = Batcher(Batching(max_jobs=100, linger_ms=60_000))
    for offset, expires in enumerate((50.0, 20.0, 30.0)):
        batcher.add(job(offset, expires=expires), 0.0)
    batcher.set_slack_margin(5.0)
    assert batcher.next_due() == 15.0
    batcher.set_slack_margin(1.0)
    assert batcher.next_due() == 19.0
