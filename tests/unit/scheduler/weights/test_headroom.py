"""The default: what ails a node takes its share at once, what gets better comes back in steps, nothing falls to nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayline.app_spec import SchedulingPolicy
from rayline.reports import CardLoad, NodeLoad
from scheduler.weights import Weigher, policy_of
from scheduler.weights.fleet import Column
from scheduler.weights.headroom import RAMP_SECONDS, HeadroomWeights
from tests.unit.scheduler.weights.fleets import load, report, weigher_of, weights_of

SETTLED = 100.0


def share(weigher: Weigher, key: str, now: float) -> float:
    weights = weights_of(weigher, now)
    return weights[key] / sum(weights.values())


def settled(loads: dict[str, NodeLoad | None]) -> Weigher:
    """All ramps are over, all factors known."""
    weigher = weigher_of(HeadroomWeights(), loads)
    for key, value in loads.items():
        weigher.fleet.observe(key, report(key, value), SETTLED)
    weigher.update(SETTLED)
    return weigher


def observe_all(weigher: Weigher, loads: dict[str, NodeLoad], now: float) -> None:
    for key, value in loads.items():
        weigher.fleet.observe(key, report(key, value), now)


def test_a_lower_limit_takes_its_share_also_where_neighbours_leave_little_and_the_node_uses_all_it_gets() -> None:
    well = {key: load(0.95, own_cpu=0.8) for key in "abcd"}
    weigher = settled(dict(well))
    observe_all(weigher, well | {"a": load(0.95, own_cpu=2.0, cores=2.4)}, SETTLED + 3)
    assert share(weigher, "a", SETTLED + 3) < 0.5 / 4


@pytest.mark.parametrize(
    "ill",
    [
        load(0.2, own_cpu=1.5, throttled=1.0),
        load(memory_pressure=0.6),
        load(disk_free=0.01),
        load(own_cpu=0.8, cores=2.0, host_cpu=0.1),  # its cgroup got a lower limit
    ],
)
def test_share_of_an_ill_node_falls_below_half_at_once_and_comes_back(ill: NodeLoad) -> None:
    well = {key: load() for key in "abcd"}
    weigher = settled(dict(well))
    usual = share(weigher, "a", SETTLED)
    observe_all(weigher, well | {"a": ill}, SETTLED + 3)
    assert share(weigher, "a", SETTLED + 3) < usual / 2
    for update in range(2, 14):
        observe_all(weigher, well, SETTLED + 3 * update)
        back = share(weigher, "a", SETTLED + 3 * update)
    assert back > 0.95 * usual


def test_a_signal_that_comes_and_goes_keeps_the_share_low_without_flapping() -> None:
    well = {key: load() for key in "abcd"}
    weigher = settled(dict(well))
    shares = []
    for update in range(1, 21):
        observe_all(weigher, well | {"a": load(memory_pressure=0.6) if update % 2 else load()}, SETTLED + 3 * update)
        shares.append(share(weigher, "a", SETTLED + 3 * update))
    assert max(shares) < 0.6 * 0.25


def test_a_clock_that_is_off_and_a_full_memory_cost_share() -> None:
    full = NodeLoad(cores=8.0, host_cpu=0.5, own_cpu=2.0, host_memory=0.99)
    weigher = settled({"off": load(clock_skew_ms=-5_000.0), "full": full, "well": load()})
    weights = weights_of(weigher, SETTLED)
    assert weights["off"] == weights["full"] == weights["well"] / 2


def test_a_node_slow_by_our_own_batches_falls_though_it_says_it_is_well() -> None:
    weigher = settled({key: load() for key in "abcd"})
    weigher.fleet.column(Column.LOG_LATENCY)[:] = [math.log(seconds) for seconds in (3.3, 1.0, 1.05, 0.95)]
    assert share(weigher, "a", SETTLED + 3) < 0.5 * 0.25
    weigher.fleet.column(Column.LOG_LATENCY)[:] = [math.log(seconds) for seconds in (1.2, 1.0, 1.05, 0.95)]
    for update in range(2, 16):
        back = share(weigher, "a", SETTLED + 3 * update)
    assert back > 0.24


def test_where_nodes_differ_anyway_none_is_called_slow() -> None:
    weigher = settled({key: load() for key in "abcdef"})
    weigher.fleet.column(Column.LOG_LATENCY)[:] = [math.log(seconds) for seconds in (0.2, 0.5, 1.0, 2.0, 4.0, 7.0)]
    assert len(set(weights_of(weigher, SETTLED).values())) == 1


def test_neighbours_take_weight_and_our_own_work_does_not() -> None:
    idle, ours, theirs = load(0.0, own_cpu=0.0), load(0.75, own_cpu=6.0), load(0.75, own_cpu=0.0)
    weights = weights_of(settled({"idle": idle, "ours": ours, "theirs": theirs}), SETTLED)
    assert weights["idle"] == weights["ours"] == pytest.approx(2 * weights["theirs"])


def test_without_any_sample_it_is_static_cores() -> None:
    weigher = Weigher(policy=HeadroomWeights())
    for key, cpus in (("a", 5.0), ("b", 1.0), ("c", 1.0)):
        weigher.fleet.join(key, 0.0)
        weigher.fleet.observe(key, report(key, None, cpus), 0.0)
    weights = weights_of(weigher)
    assert weights["a"] == pytest.approx(5 * weights["b"])
    assert weights["b"] == weights["c"]


def test_a_newcomer_starts_small_and_one_that_keeps_coming_back_for_longer() -> None:
    weigher = settled({key: load() for key in "abcd"})
    weigher.fleet.join("new", SETTLED)
    weigher.fleet.observe("new", report("new", load()), SETTLED)
    first = weights_of(weigher, SETTLED)
    assert first["new"] == pytest.approx(first["a"] / 10)
    done = weights_of(weigher, SETTLED + RAMP_SECONDS)
    assert done["new"] == pytest.approx(done["a"])
    now = SETTLED
    for _ in range(4):
        now += 10.0
        weigher.fleet.leave("new", now)
        weigher.fleet.join("new", now)
        weigher.fleet.observe("new", report("new", load()), now)
    flapped = weights_of(weigher, now + RAMP_SECONDS)
    assert flapped["new"] < flapped["a"] / 5


def test_cards_1_and_2_5_get_1_to_2_5_other_factors_equal() -> None:
    weigher = Weigher(policy=HeadroomWeights(), cards={"A10": 1.0, "L40": 2.5})
    for key, kind in (("a", "A10"), ("l", "L40")):
        weigher.fleet.join(key, 0.0)
        weigher.fleet.observe(key, report(key, NodeLoad(cores=8.0, host_cpu=0.1, own_cpu=0.8, cards=(CardLoad(kind),))), 0.0)
    weights = weights_of(weigher)
    assert weights["l"] == pytest.approx(2.5 * weights["a"])


def test_a_weight_tells_its_factors_and_unknown_ones_are_none() -> None:
    weigher = settled({"a": load(), "silent": None})
    told = weigher.weighed("a")
    assert told.weight == pytest.approx(math.prod(factor for factor in told.factors.values() if factor is not None))
    assert weigher.weighed("silent").factors["room"] is None


_number = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1), st.just(0.0))
_MEASURES = (
    "cores",
    "host_cpu",
    "own_cpu",
    "host_memory",
    "throttled",
    "memory_pressure",
    "io_pressure",
    "disk_free",
    "clock_skew_ms",
)
_loads: Any = st.one_of(
    st.none(),
    st.builds(
        NodeLoad,
        **dict.fromkeys(_MEASURES, _number),
        jobs_in_flight=st.one_of(st.none(), st.integers(0, 2**40)),
        cards=st.lists(st.builds(CardLoad, st.sampled_from(["A10", "?"]), _number), max_size=2).map(tuple),
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    policy=st.sampled_from(list(SchedulingPolicy)),
    samples=st.lists(st.lists(_loads, min_size=4, max_size=4), min_size=1, max_size=4),
    cpus=st.lists(_number, min_size=4, max_size=4),
    latencies=st.lists(st.one_of(st.just(math.nan), st.floats(-12, 12)), min_size=4, max_size=4),
    cards=st.sampled_from([None, {"A10": 2.5}]),
)
def test_weights_are_positive_and_finite_whatever_comes_in(
    policy: SchedulingPolicy,
    samples: list[list[NodeLoad | None]],
    cpus: list[float | None],
    latencies: list[float],
    cards: dict[str, float] | None,
) -> None:
    weigher = Weigher(policy=policy_of(policy), cards=cards, seed=1)
    for key in "abcd":
        weigher.fleet.join(key, 0.0)
    for turn, loads in enumerate(samples):
        for key, value, cpu in zip("abcd", loads, cpus, strict=True):
            weigher.fleet.observe(key, report(key, value, cpu), 3.0 * turn)
        weigher.fleet.column(Column.LOG_LATENCY)[:] = latencies
        weights = weights_of(weigher, 3.0 * turn)
        assert all(0 < weight < math.inf for weight in weights.values())
        assert min(weights.values()) >= max(weights.values()) / 10_001, "nobody is starved"
