"""Weights: shares of cores, and nothing unknown taken for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.reports import NodeReport, NodeState
from scheduler.weights import StaticWeights, Weigher

cpus = st.one_of(st.none(), st.floats(0.1, 512))


def weights_of(given_cpus: dict[str, float | None]) -> dict[str, float]:
    weigher = Weigher(policy=StaticWeights(), seed=1)
    for key, value in given_cpus.items():
        weigher.fleet.join(key, 0.0)
        weigher.fleet.observe(key, NodeReport("c", key, 1, 1, NodeState.READY, value), 0.0)
    keys, weights = weigher.update(0.0)
    return dict(zip(keys, weights.tolist(), strict=True))


@given(st.dictionaries(st.text(max_size=4), cpus, max_size=8))
def test_known_weights_stay_and_unknown_ones_become_their_mean(given_cpus: dict[str, float | None]) -> None:
    weights = weights_of(given_cpus)
    known = [value for value in given_cpus.values() if value is not None]
    assert weights.keys() == given_cpus.keys()
    for key, value in given_cpus.items():
        if value is not None:
            assert weights[key] == pytest.approx(max(value, sum(known) / len(known) * 0.01))
        elif known:
            assert weights[key] == pytest.approx(sum(known) / len(known))
        else:
            assert weights[key] == 1.0


def test_a_node_that_says_it_has_no_cpu_is_unknown_not_idle() -> None:
    assert weights_of({"none": 0.0, "two": 2.0, "four": 4.0})["none"] == 3.0
