"""The broker's clock: bounded by what was observed, whatever this machine's clock says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rayline.clock import BrokerClock

TRUE_EPOCH_MS = 1_700_000_000_000


def broker_ms(monotonic: float) -> int:
    """What a broker whose clock is right stamps at a monotonic instant (whole milliseconds, as Kafka does)."""
    return int(TRUE_EPOCH_MS + monotonic * 1000)


@given(st.floats(-30_000, 30_000), st.floats(0, 0.2), st.floats(0, 0.2))
def test_the_first_append_corrects_a_skewed_machine_to_within_its_round_trip(skew_ms: float, there: float, back: float) -> None:
    clock = BrokerClock(wall_ms=TRUE_EPOCH_MS + skew_ms, monotonic=0.0)
    clock.observe_append(append_ms=broker_ms(5.0 + there), sent_at=5.0, acknowledged_at=5.0 + there + back)
    assert abs(clock.at(6.0) - (TRUE_EPOCH_MS + 6_000)) <= (there + back) * 1000 + 1.01


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.1), st.floats(0, 0.1)), max_size=30), st.floats(-50, 50))
def test_no_order_of_observations_takes_it_out_of_the_newest_bounds(
    observations: list[tuple[bool, float, float]], skew_ms: float
) -> None:
    clock = BrokerClock(wall_ms=TRUE_EPOCH_MS + skew_ms, monotonic=0.0)
    for number, (append, there, back) in enumerate(observations):
        start = float(number)
        stamped = broker_ms(start + there)
        if append:
            clock.observe_append(append_ms=stamped, sent_at=start, acknowledged_at=start + there + back)
            assert clock.at(start) <= stamped + 1.001
        else:
            clock.observe_read(append_ms=stamped, read_at=start + there + back)
        assert clock.at(start + there + back) >= stamped - 0.001


@given(st.floats(-3_600_000, 3_600_000))
def test_a_jump_of_the_brokers_clock_is_followed_with_the_next_append(jump_ms: float) -> None:
    clock = BrokerClock(wall_ms=TRUE_EPOCH_MS, monotonic=0.0)
    clock.observe_append(append_ms=broker_ms(1.0), sent_at=1.0, acknowledged_at=1.01)
    clock.observe_append(append_ms=int(broker_ms(2.0) + jump_ms), sent_at=2.0, acknowledged_at=2.01)
    assert abs(clock.at(2.0) - (broker_ms(2.0) + jump_ms)) <= 12


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_both_directions_agree(skew_ms: float, monotonic: float) -> None:
    clock = BrokerClock(wall_ms=TRUE_EPOCH_MS + skew_ms, monotonic=3.0)
    assert abs(clock.monotonic_at(clock.at(monotonic)) - monotonic) < 1e-3


def test_a_record_in_hand_cannot_have_been_appended_in_the_future() -> None:
    clock = BrokerClock(wall_ms=TRUE_EPOCH_MS - 30_000, monotonic=0.0)
    clock.observe_read(append_ms=broker_ms(1.0), read_at=1.5)
    assert clock.at(1.5) >= broker_ms(1.0)
