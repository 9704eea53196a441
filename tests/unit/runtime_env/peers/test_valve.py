"""Beside a model of libtorrent's own limiter: what it is told keeps a node to its limit at each moment, and costs little."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime_env.peers.valve import SAVED_SECONDS, WINDOW_SECONDS, Valve

LIMIT = 10 * 2**20
TICK = 0.1


class Limiter:
    """libtorrent's `bandwidth_channel`: saves up three seconds of what it was told last."""

    def __init__(self) -> None:
        self.told = LIMIT
        self.left = 0.0

    def tick(self, wanted: float) -> float:
        self.left = min(self.left + self.told * TICK, 3.0 * self.told)
        given_out = min(self.left, wanted)
        self.left -= given_out
        return given_out


def received(demands: Sequence[float], *, valve: Valve | None) -> list[float]:
    """Bytes after each tick, when peers offer so many limits' worth of bytes in it; what was held back is offered again."""
    limiter = Limiter()
    total, waiting, totals = 0.0, 0.0, [0.0]
    for number, demand in enumerate(demands):
        waiting += demand * LIMIT * TICK
        came = limiter.tick(waiting)
        # Requests that wait too long are cancelled: one second of them at most is outstanding.
        waiting = min(waiting - came, 1.0 * LIMIT)
        total += came
        totals.append(total)
        if valve is not None:
            limiter.told = valve.rate(LIMIT, int(total), (number + 1) * TICK, waiting=waiting > 0)
    return totals


def most_in_a_window(totals: Sequence[float]) -> float:
    """In limits: 1 is what may come."""
    ticks = round(WINDOW_SECONDS / TICK)
    return max(after - before for before, after in zip(totals, totals[ticks:], strict=False)) / (LIMIT * WINDOW_SECONDS)


HELD_UP = [0.3] * 40 + [4.0] * 40 + [0.0] * 30 + [8.0] * 40


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0, 1.5, 8.0]), st.integers(1, 30)), min_size=3, max_size=12).filter(
        lambda phases: sum(ticks for _, ticks in phases) >= 30
    )
)
@example([(0.3, 40), (4.0, 40), (0.0, 30), (8.0, 40)])
def test_no_window_holds_more_than_the_limit_whatever_others_offer(phases: list[tuple[float, int]]) -> None:
    demands = [demand for demand, ticks in phases for _ in range(ticks)]
    assert most_in_a_window(received(demands, valve=Valve())) <= 1.08


def test_the_limiter_alone_lets_a_node_catch_up() -> None:
    assert most_in_a_window(received(HELD_UP, valve=None)) > 1.5


@pytest.mark.parametrize("demand", [0.3, 0.7, 0.95, 1.0, 2.0])
def test_what_is_offered_steadily_is_taken_up_to_the_limit(demand: float) -> None:
    totals = received([demand] * 200, valve=Valve())
    assert (totals[-1] - totals[20]) / (LIMIT * TICK * 180) >= 0.95 * min(1.0, demand)


def test_a_limit_that_is_lowered_holds_after_one_window() -> None:
    valve, moved = Valve(), 0
    for number in range(30):
        moved += int(LIMIT * TICK)
        valve.rate(LIMIT, moved, number * TICK, waiting=True)
    lowered = LIMIT // 4
    told = [valve.rate(lowered, moved, (30 + number) * TICK, waiting=True) for number in range(25)]
    assert told[0] < lowered * SAVED_SECONDS, "what came before the change counts"
    assert told[-1] == lowered
