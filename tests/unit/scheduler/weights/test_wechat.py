"""The article's formula as printed, and what each of its gaps is read as."""

from __future__ import annotations

import math

import pytest

from rayline.reports import CardLoad, NodeLoad
from scheduler.swrr import SmoothWeightedRoundRobin
from scheduler.weights import Weigher
from scheduler.weights.wechat import STALE_SECONDS, WechatWeights
from tests.unit.scheduler.weights.fleets import load, report, weigher_of, weights_of


def said(value: NodeLoad | None, *, policy: WechatWeights | None = None, now: float = 0.0) -> float:
    """What the formula alone says of a node; NaN: nothing."""
    weigher = weigher_of(policy or WechatWeights(), {"n": value})
    return float(weigher.policy.weigh(weigher.fleet, now).values[0])


@pytest.mark.parametrize(("utilisation", "weight"), [(0.25, 216), (0.5, 391), (0.8, 479), (0.9, 414)])
def test_golden_vector_8_cores_4_jobs(utilisation: float, weight: int) -> None:
    assert round(said(load(utilisation))) == weight


def test_a_percent_and_natural_logarithm_and_no_remainder_below_one_percent() -> None:
    assert said(load(0.5)) == pytest.approx(8 * math.log(50) * 50 / 4)
    assert said(load(1.0)) == 0.0
    assert said(load(0.995)) == 0.0


def test_b_idle_and_without_jobs_is_not_known_and_gets_the_mean() -> None:
    assert math.isnan(said(load(0.0, jobs=0)))
    weights = weights_of(weigher_of(WechatWeights(), {"idle": load(0.0, jobs=0), "a": load(0.5), "b": load(0.8)}))
    assert weights["idle"] == pytest.approx((weights["a"] + weights["b"]) / 2)


def test_c_used_but_without_jobs_counts_as_one_job() -> None:
    assert said(load(0.5, jobs=0)) == said(load(0.5, jobs=1))


def test_d_unused_with_jobs_is_the_least_share_but_never_none() -> None:
    assert said(load(0.0, jobs=3)) == 0.0
    weigher = weigher_of(WechatWeights(), {"zero": load(0.0, jobs=3), "a": load(0.5)})
    swrr: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
    swrr.set_weights(*weigher.update(0.0))
    assert 0 < [swrr.pick() for _ in range(1000)].count("zero") < 20


def test_e_a_neighbours_load_raises_the_weight_by_the_machines_utilisation_and_lowers_it_by_our_own() -> None:
    quiet, noisy = load(0.25, own_cpu=2.0), load(0.5, own_cpu=2.0)
    assert said(noisy) > said(quiet)
    own = WechatWeights(own_utilisation=True)
    assert said(noisy, policy=own) < said(quiet, policy=own)


def test_f_concurrency_is_that_of_the_node_by_its_report() -> None:
    assert said(load(0.5, jobs=8)) == said(load(0.5, jobs=4)) / 2
    assert math.isnan(said(load(0.5, jobs=None)))


def test_g_a_node_with_cards_counts_by_cards_where_the_app_works_on_them() -> None:
    sample = NodeLoad(cores=8.0, host_cpu=0.9, jobs_in_flight=4, cards=(CardLoad("L40", 0.5), CardLoad("A10", 0.5)))
    for cards, expected in (({"L40": 2.5}, 3.5 * math.log(50) * 50 / 4), (None, 8 * math.log(10) * 90 / 4)):
        weigher = Weigher(policy=WechatWeights(), cards=cards)
        weigher.fleet.join("n", 0.0)
        weigher.fleet.observe("n", report("n", sample), 0.0)
        assert float(weigher.policy.weigh(weigher.fleet, 0.0).values[0]) == pytest.approx(expected)


def test_h_nothing_is_smoothed() -> None:
    weigher = weigher_of(WechatWeights(), {"n": load(0.25), "other": load(0.5)})
    before = weights_of(weigher)
    weigher.fleet.observe("n", report("n", load(0.5)), 3.0)
    after = weights_of(weigher, 3.0)
    assert after["n"] == after["other"] == before["other"]


def test_i_a_node_without_a_fresh_report_is_not_known() -> None:
    assert math.isnan(said(None))
    assert not math.isnan(said(load(), now=STALE_SECONDS))
    assert math.isnan(said(load(), now=STALE_SECONDS + 1))


def test_j_route_weights_survive_an_update() -> None:
    swrr: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
    weigher = weigher_of(WechatWeights(), {"a": load(0.5), "b": load(0.8), "c": load(0.9)})
    swrr.set_weights(*weigher.update(0.0))
    for _ in range(5):
        swrr.pick()
    before = [swrr.route_weight(key) for key in "abc"]
    weigher.fleet.observe("a", report("a", load(0.25)), 3.0)
    swrr.set_weights(*weigher.update(3.0))
    assert [swrr.route_weight(key) for key in "abc"] == before
    assert any(before)


def test_k_of_equal_nodes_the_first_in_order_wins() -> None:
    swrr: SmoothWeightedRoundRobin[str] = SmoothWeightedRoundRobin()
    swrr.set_weights(*weigher_of(WechatWeights(), {"z": load(), "a": load()}).update(0.0))
    assert [swrr.pick() for _ in range(4)] == ["z", "a", "z", "a"]


def test_l_many_nodes_keep_their_proportions_on_the_grid() -> None:
    loads = {f"n{i}": load(0.2 + 0.6 * i / 500, jobs=1 + i % 7) for i in range(500)}
    weigher = weigher_of(WechatWeights(), loads)
    exact = weigher.policy.weigh(weigher.fleet, 0.0).values
    totals = sum(weigher.update(0.0)[1] for _ in range(200)) / 200
    assert abs(totals / exact - 1).max() < 0.02
