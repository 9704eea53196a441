"""A node leaves most of its link and processor to serving, and takes its share of what the network may carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_env.peers.limits import (
    BURST_SECONDS,
    MIN_RATE,
    LinkProbe,
    NodeSpeed,
    Pace,
    measure_hashing,
    node_limit,
    share_of,
    split,
)

MIB = 2**20


def test_a_slow_link_and_a_slow_processor_each_set_the_limit() -> None:
    fast = NodeSpeed(link=100 * MIB, hashing=1500 * MIB, cores=8)
    assert node_limit(fast) == 50 * MIB
    assert node_limit(NodeSpeed(link=20 * MIB, hashing=1500 * MIB, cores=8)) == 10 * MIB
    assert node_limit(NodeSpeed(link=100 * MIB, hashing=300 * MIB, cores=1)) == pytest.approx(3.125 * MIB)
    assert node_limit(NodeSpeed(link=1, hashing=1, cores=1)) == MIN_RATE


@given(st.integers(1000, 10**9), st.lists(st.one_of(st.none(), st.integers(1, 10**9)), min_size=1, max_size=40))
def test_the_shares_of_all_that_fetch_leave_a_twentieth_of_the_total(total: int, own_limits: list[int | None]) -> None:
    shares = [share_of(total, limit, fetching=len(own_limits)) for limit in own_limits]
    assert all(share is not None for share in shares)
    assert sum(share for share in shares if share is not None) <= 0.95 * total


@given(st.integers(8, 10**9), st.integers(2, 100))
def test_a_reading_nodes_parts_do_not_exceed_its_limit(limit: int, fetching: int) -> None:
    peers, store = split(limit, fetching=fetching)
    assert peers + store <= limit
    assert store >= limit // 4
    assert split(limit, fetching=1)[1] == limit


def test_one_that_fetches_alone_has_all_that_is_shared_out() -> None:
    assert share_of(100 * MIB, None, fetching=1) == share_of(100 * MIB, None, fetching=0) == 95 * MIB


def test_no_limit_is_none() -> None:
    assert share_of(None, None, fetching=3) is None
    assert share_of(None, 5, fetching=3) == 5


def test_hashing_is_measured() -> None:
    assert measure_hashing(seconds=0.01) > MIB


def moved_at(probe: LinkProbe, rates: list[int], *, start: float, moved: int, limit: int | None) -> tuple[float, int]:
    """Quarter seconds at these rates; returns when and where they end."""
    for rate in rates:
        start, moved = start + 0.25, moved + rate // 4
        probe.observe(moved, start, limit=limit)
    return start, moved


def test_the_fastest_stretch_of_the_first_transfers_is_the_links_speed() -> None:
    probe = LinkProbe()
    assert probe.link is None
    probe.observe(0, 0.0, limit=None)
    # Times without transfer say nothing about the link.
    now, moved = moved_at(probe, [0] * 40, start=0.0, moved=0, limit=None)
    assert probe.link is None
    moved_at(probe, [MIB, 20 * MIB, 20 * MIB, 20 * MIB, MIB, MIB], start=now, moved=moved, limit=None)
    assert probe.link == 20 * MIB


def test_what_waited_in_buffers_and_comes_at_once_is_no_speed_of_the_link() -> None:
    probe = LinkProbe()
    probe.observe(0, 0.0, limit=None)
    moved_at(probe, [2 * MIB, 2 * MIB, 8 * MIB, 2 * MIB, 2 * MIB, 2 * MIB], start=0.0, moved=0, limit=None)
    assert probe.link == 4 * MIB


def test_a_node_that_uses_up_its_limit_tests_again_and_less_often_when_that_brings_nothing() -> None:
    probe = LinkProbe()
    probe.observe(0, 0.0, limit=None)
    now, moved = moved_at(probe, [2 * MIB] * 6, start=0.0, moved=0, limit=None)
    assert probe.link == 2 * MIB
    # Below its limit there is nothing to find out.
    now, moved = moved_at(probe, [MIB // 2] * 100, start=now, moved=moved, limit=MIB)
    assert probe.link == 2 * MIB
    now, moved = moved_at(probe, [MIB] * 20, start=now, moved=moved, limit=MIB)
    assert probe.link is None
    now, moved = moved_at(probe, [90 * MIB] * 6, start=now, moved=moved, limit=None)
    assert probe.link == 90 * MIB
    for seconds in (5, 10, 20):
        now, moved = moved_at(probe, [45 * MIB] * (seconds * 4 - 1), start=now, moved=moved, limit=45 * MIB)
        assert probe.link is not None
        now, moved = moved_at(probe, [45 * MIB], start=now, moved=moved, limit=45 * MIB)
        assert probe.link is None
        now, moved = moved_at(probe, [90 * MIB] * 6, start=now, moved=moved, limit=None)
        assert probe.link == 90 * MIB


def test_pace_spreads_bytes_and_saves_up_a_moment_at_most() -> None:
    pace = Pace()
    assert pace.delay_seconds(100, 100, now=0.0) == 1.0 - BURST_SECONDS
    assert pace.delay_seconds(100, 100, now=1.0 - BURST_SECONDS) == 1.0
    assert pace.delay_seconds(100, 100, now=50.0) == 1.0 - BURST_SECONDS
    assert pace.delay_seconds(100, None, now=50.0) == 0.0


def test_what_is_to_wait_for_follows_a_limit_that_changes_meanwhile() -> None:
    pace = Pace()
    assert pace.delay_seconds(1_000, 1, now=0.0) == 1_000 - BURST_SECONDS
    assert pace.delay_seconds(0, 1, now=500.0) == pytest.approx(500 - BURST_SECONDS)
    assert pace.delay_seconds(0, 100, now=500.0) == pytest.approx((500 - BURST_SECONDS) / 100)
    assert pace.delay_seconds(0, 50, now=500.0) == pytest.approx((500 - BURST_SECONDS) / 50)
    assert pace.delay_seconds(0, None, now=500.0) == 0.0
    assert pace.delay_seconds(0, 1, now=500.0) == 0.0
