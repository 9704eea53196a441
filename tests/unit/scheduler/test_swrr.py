"""The O(log n) round robin picks exactly what the plain one picks, whatever happens to its nodes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler import swrr as swrr_module
from scheduler.swrr import WEIGHT_RESOLUTION, SmoothWeightedRoundRobin


class PlainSwrr:
    """The algorithm as nginx prints it, O(n) a pick, in units of the resolution."""

    def __init__(self) -> None:
        self.weights: dict[str, int | None] = {}
        self.route_weights: dict[str, int] = {}
        self.blocked: set[str] = set()

    def set_weight(self, key: str, weight: float | None) -> None:
        if key not in self.route_weights:
            present = self.route_weights
            self.route_weights[key] = sum(present.values()) // len(present) if present else 0
        self.weights[key] = None if weight is None else max(1, round(weight / WEIGHT_RESOLUTION))

    def remove(self, key: str) -> None:
        del self.weights[key], self.route_weights[key]
        self.blocked.discard(key)

    def pick(self) -> str | None:
        total, best = 0, None
        for key, weight in self.weights.items():
            if weight is None or key in self.blocked:
                continue
            self.route_weights[key] += weight
            total += weight
            if best is None or self.route_weights[key] > self.route_weights[best]:
                best = key
        if best is not None:
            self.route_weights[best] -= total
        return best


def _swrr(weights: dict[str, float]) -> SmoothWeightedRoundRobin[str]:
    swrr: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
    for key, weight in weights.items():
        swrr.set_weight(key, weight)
    return swrr


def test_golden_vector_of_nginx_and_the_article() -> None:
    swrr = _swrr({"A": 5, "B": 1, "C": 1})
    picks, after = [], []
    for _ in range(7):
        picks.append(swrr.pick())
        after.append(tuple(swrr.route_weight(key) for key in "ABC"))
    assert picks == list("AABACAA")
    # Plus one weight each, these are the states before a pick: (5,1,1) (3,2,2) (1,3,3) (6,-3,4) (4,-2,5) (9,-1,-1) (7,0,0).
    assert after == [(-2, 1, 1), (-4, 2, 2), (1, -4, 3), (-1, -3, 4), (4, -2, -2), (2, -1, -1), (0, 0, 0)]


def test_of_level_nodes_the_first_in_order_is_chosen() -> None:
    assert [_swrr({"z": 1, "a": 1, "m": 1}).pick() for _ in range(3)] == ["z"] * 3
    swrr = _swrr({"z": 1, "a": 1, "m": 1})
    assert [swrr.pick() for _ in range(6)] == ["z", "a", "m"] * 2


def test_nobody_available_is_none_and_costs_no_turn() -> None:
    swrr = _swrr({"a": 2, "b": 1})
    assert swrr.pick() == "a"
    before = swrr.route_weight("a")
    swrr.block("a")
    swrr.block("b")
    assert swrr.pick() is None
    swrr.unblock("a")
    swrr.unblock("b")
    assert swrr.route_weight("a") == before


def test_unknown_weight_is_never_chosen_until_known() -> None:
    swrr = _swrr({"a": 1})
    swrr.set_weight("b", None)
    assert {swrr.pick() for _ in range(5)} == {"a"}
    swrr.set_weight("b", 1)
    assert {swrr.pick() for _ in range(5)} == {"a", "b"}


def test_a_blocked_node_neither_gains_nor_counts() -> None:
    swrr = _swrr({"a": 3, "b": 1})
    swrr.pick()
    held = swrr.route_weight("b")
    swrr.block("b")
    assert [swrr.pick() for _ in range(4)] == ["a"] * 4
    assert swrr.route_weight("b") == held
    assert swrr.route_weight("a") == -1  # alone it gains what it pays


def test_route_weights_survive_a_change_of_weight() -> None:
    swrr = _swrr({"a": 5, "b": 1, "c": 1})
    for _ in range(3):
        swrr.pick()
    before = [swrr.route_weight(key) for key in "abc"]
    swrr.set_weight("a", 0.25)
    swrr.set_weight("b", None)
    assert [swrr.route_weight(key) for key in "abc"] == before


def test_newcomer_is_not_starved_by_debts_that_left() -> None:
    swrr = _swrr({"old-1": 1, "old-2": 1})
    for generation in range(200):  # each guest leaves right after its turn: with its debt
        guest = f"guest-{generation}"
        swrr.set_weight(guest, 50)
        while swrr.pick() != guest:
            pass
        swrr.remove(guest)
    swrr.set_weight("new", 1)
    assert "new" in [swrr.pick() for _ in range(4)]


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf, 1e9])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="not positive, finite"):
        SmoothWeightedRoundRobin[str]().set_weight("a", weight)


def test_a_node_that_is_not_there_is_a_key_error() -> None:
    swrr = _swrr({"a": 1})
    for act in (swrr.remove, swrr.block, swrr.unblock, swrr.route_weight):
        with pytest.raises(KeyError):
            act("b")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=40))
def test_one_period_gives_each_node_exactly_its_weight(weights: list[int]) -> None:
    swrr = _swrr({str(i): weight for i, weight in enumerate(weights)})
    picks = [swrr.pick() for _ in range(sum(weights))]
    assert [picks.count(str(i)) for i in range(len(weights))] == weights
    assert all(swrr.route_weight(str(i)) == 0 for i in range(len(weights)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=40), st.integers(1, 400))
def test_fractional_weights_pick_as_the_plain_algorithm(weights: list[float], turns: int) -> None:
    swrr, plain = _swrr({str(i): weight for i, weight in enumerate(weights)}), PlainSwrr()
    for i, weight in enumerate(weights):
        plain.set_weight(str(i), weight)
    assert [swrr.pick() for _ in range(turns)] == [plain.pick() for _ in range(turns)]


def test_heap_of_a_group_stays_bounded_while_nodes_block_without_picks() -> None:
    swrr = _swrr({str(i): 1 for i in range(8)})
    swrr.pick()
    for _ in range(500):
        swrr.block("5")
        swrr.pick()
        swrr.unblock("5")
        swrr.block("6")
        swrr.unblock("6")
    assert max(len(group.heap) for group in swrr._groups.values()) <= 2 * 8 + 17


def test_many_weights_at_once_refuse_what_one_refuses() -> None:
    with pytest.raises(ValueError, match=r"weight -1\.0 is not positive"):
        SmoothWeightedRoundRobin[str]().set_weights(["a", "b"], [1, -1])
    with pytest.raises(ValueError, match="2 nodes and 1 weights"):
        SmoothWeightedRoundRobin[str]().set_weights(["a", "b"], [1])


def test_reweighing_refuses_who_is_not_there_and_another_number_of_weights() -> None:
    swrr = _swrr({"a": 1, "b": 1})
    both = ("a", "b")
    swrr.reweigh(both, np.array([2.0, 3.0]))
    swrr.remove("a")
    with pytest.raises(KeyError):
        swrr.reweigh(both, np.array([2.0, 3.0]))
    with pytest.raises(ValueError, match="1 nodes and 2 weights"):
        swrr.reweigh(("b",), np.array([2.0, 3.0]))


def test_the_weight_of_a_blocked_node_stays_as_it_is_when_the_others_are_weighed_anew() -> None:
    swrr = _swrr({"a": 1, "b": 1})
    swrr.block("b")
    swrr.reweigh(("a", "b"), np.array([4.0, 0.0]))
    swrr.unblock("b")
    assert sorted(str(swrr.pick()) for _ in range(5)) == ["a", "a", "a", "a", "b"]


def test_weights_whose_sum_no_64_bits_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swrr_module, "_UNITS_HELD", 1 << 25)
    with pytest.raises(OverflowError, match="scale them down"):
        SmoothWeightedRoundRobin[str]().set_weights(["a", "b"], [20, 20])


def test_picks_go_on_as_before_when_turns_are_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swrr_module, "_UNITS_HELD", 1 << 28)
    weights = {"a": 7.5, "b": 1, "c": 0.25}
    swrr, plain = _swrr(weights), PlainSwrr()
    for key, weight in weights.items():
        plain.set_weight(key, weight)
    for turn in range(200):
        assert swrr.pick() == plain.pick()
        if turn % 40 == 39:
            heavy = float(turn)
            swrr.set_weight("late", heavy)
            plain.set_weight("late", heavy)
    assert swrr.statistics().picks == 200


def test_rows_of_removed_nodes_are_given_back_and_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swrr_module, "_HOLES_ALLOWANCE", 2)
    swrr, plain = _swrr({"first": 1}), PlainSwrr()
    plain.set_weight("first", 1)
    for guest in range(60):
        for each in (swrr, plain):
            each.set_weight(f"guest-{guest}", 1 + guest % 3)
        assert [swrr.pick() for _ in range(5)] == [plain.pick() for _ in range(5)]
        if guest >= 4:
            swrr.remove(f"guest-{guest - 4}")
            plain.remove(f"guest-{guest - 4}")
    assert len(swrr._keys) <= 2 * len(swrr) + 3


class Equivalence(RuleBasedStateMachine):
    """Any interleaving of picks and changes: same picks, same route weights."""

    keys = st.sampled_from([f"n{i}" for i in range(12)])
    weights = st.one_of(st.none(), st.integers(1, 6), st.integers(1, 1000), st.floats(0.01, 50))

    def __init__(self) -> None:
        super().__init__()
        self.swrr: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
        self.plain = PlainSwrr()
        self.known: tuple[str, ...] = ()  # of the last `reweigh`

    @rule(key=keys, weight=weights)
    def set_weight(self, key: str, weight: float | None) -> None:
        self.swrr.set_weight(key, weight)
        self.plain.set_weight(key, weight)

    @rule(weights=st.lists(st.integers(1, 9), min_size=12, max_size=12))
    def set_all_weights(self, weights: list[int]) -> None:
        self.swrr.set_weights([f"n{i}" for i in range(12)], weights)
        for i, weight in enumerate(weights):
            self.plain.set_weight(f"n{i}", weight)

    @precondition(lambda self: self.plain.weights)
    @rule(weights=st.lists(st.integers(1, 9), min_size=12, max_size=12), part=st.sets(keys))
    def reweigh_those_that_are_not_blocked(self, weights: list[int], part: set[str]) -> None:
        if set(self.known) != self.plain.weights.keys() & part:
            self.known = tuple(key for key in self.plain.weights if key in part)
        self.swrr.reweigh(self.known, np.array(weights[: len(self.known)], np.float64))
        for key, weight in zip(self.known, weights, strict=False):
            if key not in self.plain.blocked:
                self.plain.set_weight(key, weight)

    @precondition(lambda self: self.plain.weights)
    @rule(data=st.data(), act=st.sampled_from(["remove", "block", "unblock"]))
    def take_out(self, data: st.DataObject, act: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.plain.weights)))
        getattr(self.swrr, act)(key)
        match act:
            case "remove":
                self.plain.remove(key)
            case "block":
                self.plain.blocked.add(key)
            case "unblock":
                self.plain.blocked.discard(key)

    @rule(turns=st.integers(1, 60))
    def pick(self, turns: int) -> None:
        assert [self.swrr.pick() for _ in range(turns)] == [self.plain.pick() for _ in range(turns)]

    @invariant()
    def route_weights_agree(self) -> None:
        for key, route_weight in self.plain.route_weights.items():
            assert self.swrr.route_weight(key) == route_weight * WEIGHT_RESOLUTION

    @invariant()
    def statistics_agree(self) -> None:
        statistics, plain = self.swrr.statistics(), self.plain
        usable = [w for k, w in plain.weights.items() if w is not None and k not in plain.blocked]
        assert (statistics.nodes, statistics.available) == (len(plain.weights), len(usable))
        assert statistics.distinct_weights == len(set(usable))
        assert statistics.total_weight == sum(usable) * WEIGHT_RESOLUTION


Equivalence.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestEquivalence = Equivalence.TestCase
