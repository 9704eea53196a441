"""What passes is bounded in each second; what is set holds at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.output.limits import LineBudget, OutputLimits

writes = st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 300)), max_size=200)


@given(writes)
def test_no_second_lets_more_pass_than_its_rate_and_one_burst(written: list[tuple[float, int]]) -> None:
    limits = OutputLimits(lines_per_second=10, bytes_per_second=1_000)
    budget = LineBudget(limits, now=0.0)
    now, passed = 0.0, []
    for pause, size in written:
        now += pause
        budget.room(now)
        if budget.take(size):
            passed.append((now, size))
    for begin, _ in passed:
        window = [size for at, size in passed if begin <= at <= begin + 1]
        assert len(window) <= 20
        assert sum(window) <= 2_000 + 300


def test_a_quiet_second_fills_the_bucket_and_no_more() -> None:
    budget = LineBudget(OutputLimits(lines_per_second=3), now=0.0)
    assert [budget.take(1) for _ in range(4)] == [True, True, True, False]
    assert budget.room(1.0) == 3
    assert budget.room(100.0) == 3


def test_bytes_that_are_used_up_stop_short_lines_too() -> None:
    budget = LineBudget(OutputLimits(bytes_per_second=1_000), now=0.0)
    assert budget.take(5_000)
    assert budget.room(0.1) == 0
    assert not budget.take(1)
    assert budget.room(5.0) > 0


@given(st.booleans(), st.integers(1, 10**6), st.integers(1, 10**9), st.integers(1, 65_536), st.integers(1, 10**6))
def test_limits_are_read_back(enabled: bool, lines: int, size: int, line: int, batch: int) -> None:
    limits = OutputLimits(enabled, lines, size, line, batch)
    assert OutputLimits.unpack(limits.pack()) == limits
