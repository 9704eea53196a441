"""Weights: shares of cores, and nothing unknown taken for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rayline.reports import NodeReport, NodeState
from scheduler.view import NodeView
from scheduler.weights import StaticWeights, fill_unknown

cpus = st.one_of(st.none(), st.floats(0.1, 512))


@given(st.dictionaries(st.text(max_size=4), cpus, max_size=8))
def test_known_weights_stay_and_unknown_ones_become_their_mean(given_cpus: dict[str, float | None]) -> None:
    nodes = {
        key: NodeView(report=NodeReport("c", key, 1, 1, NodeState.READY, value), heard=0.0) for key, value in given_cpus.items()
    }
    weights = fill_unknown(StaticWeights().weigh(nodes))
    known = [value for value in given_cpus.values() if value is not None]
    assert weights.keys() == given_cpus.keys()
    for key, value in given_cpus.items():
        if value is not None:
            assert weights[key] == value
        elif known:
            assert min(known) - 1e-9 <= weights[key] <= max(known) + 1e-9
        else:
            assert weights[key] == 1.0


def test_a_node_that_says_it_has_no_cpu_is_unknown_not_idle() -> None:
    node = NodeView(report=NodeReport("c", "n", 1, 1, NodeState.READY, 0.0), heard=0.0)
    assert StaticWeights().weigh({"n": node}) == {"n": None}
