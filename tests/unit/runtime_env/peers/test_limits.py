"""A node leaves most of its link and processor to serving, and takes its share of what the network may carry."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_env.peers.limits import (
    BURST_SECONDS,
    MIN_RATE,
    NodeSpeed,
    Pace,
    measure_hashing,
    measure_link,
    node_limit,
    share_of,
    split,
)

MIB = 2**20


def test_a_slow_link_and_a_slow_processor_each_set_the_limit() -> None:
    fast = NodeSpeed(link=100 * MIB, hashing=1500 * MIB, cores=8)
    assert node_limit(fast) == 50 * MIB
    assert node_limit(NodeSpeed(link=20 * MIB, hashing=1500 * MIB, cores=8)) == 10 * MIB
    assert node_limit(NodeSpeed(link=100 * MIB, hashing=300 * MIB, cores=1)) == pytest.approx(12.5 * MIB)
    assert node_limit(NodeSpeed(link=1, hashing=1, cores=1)) == MIN_RATE


@given(st.integers(1000, 10**9), st.lists(st.one_of(st.none(), st.integers(1, 10**9)), min_size=1, max_size=40))
def test_the_shares_of_all_that_fetch_do_not_exceed_the_total(total: int, own_limits: list[int | None]) -> None:
    shares = [share_of(total, limit, fetching=len(own_limits)) for limit in own_limits]
    assert all(share is not None for share in shares)
    assert sum(share for share in shares if share is not None) <= total


@given(st.integers(8, 10**9), st.integers(2, 100))
def test_a_reading_nodes_parts_do_not_exceed_its_limit(limit: int, fetching: int) -> None:
    peers, store = split(limit, fetching=fetching)
    assert peers + store <= limit
    assert store >= limit // 4
    assert split(limit, fetching=1)[1] == limit


def test_no_limit_is_none() -> None:
    assert share_of(None, None, fetching=3) is None
    assert share_of(None, 5, fetching=3) == 5


def test_the_link_is_measured_within_its_time_and_bytes() -> None:
    clock = iter(range(100))
    measured = measure_link(lambda: io.BytesIO(bytes(10 * MIB)), seconds=5, clock=lambda: float(next(clock)))
    # Each look at the clock takes a second here: five reads of 256 KiB at most.
    assert 0 < measured <= 5 * 256 * 1024
    with pytest.raises(ValueError, match="empty"):
        measure_link(lambda: io.BytesIO(b""))
    assert measure_hashing(seconds=0.01) > MIB


def test_pace_spreads_bytes_and_saves_up_a_moment_at_most() -> None:
    pace = Pace()
    assert pace.delay_seconds(100, 100, now=0.0) == 1.0 - BURST_SECONDS
    assert pace.delay_seconds(100, 100, now=1.0 - BURST_SECONDS) == 1.0
    assert pace.delay_seconds(100, 100, now=50.0) == 1.0 - BURST_SECONDS
    assert pace.delay_seconds(100, None, now=50.0) == 0.0
