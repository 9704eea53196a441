"""The cost of a fleet: the smallest one that attains the SLA, the same on every machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.scheduling.cost import ATTAINED, USUAL, Offer, as_document, costs, offers, smallest_fleet
from bench.scheduling.engine import Simulation
from bench.scheduling.policies import PRODUCT
from bench.scheduling.scenario import Costs

SMALL = replace(
    USUAL, jobs_a_second=8.0, seconds=25.0, warm_up_seconds=5.0, cores=(2, 2), costs=Costs.EQUAL, deadline_seconds=1.1
)


def in_time(nodes: int) -> float:
    outcome = Simulation(replace(SMALL, nodes=nodes), 0, PRODUCT["headroom"]).run()
    return 1.0 - (outcome.late + outcome.unfinished) / outcome.arrived


def test_one_node_fewer_than_the_smallest_fleet_does_not_attain_the_sla() -> None:
    nodes, attained, again = smallest_fleet((SMALL, 1))
    assert attained == in_time(nodes) >= ATTAINED
    assert in_time(nodes - 1) < ATTAINED
    assert again == 0


def test_a_fleet_has_more_cores_than_the_work_needs_however_short_the_run() -> None:
    nodes, _, _ = smallest_fleet((replace(SMALL, seconds=6.0), 1))
    assert nodes * SMALL.cores[0] > 8


def test_what_is_taken_away_needs_more_nodes_and_a_price_decides_what_that_costs() -> None:
    stays = Offer("stays", 1.0, replace(SMALL, deadline_seconds=2.5))
    taken = Offer("taken", 0.3, replace(stays.scenario, notices=60.0, deaths=60.0, replacement_seconds=20.0))
    dear, cheap = costs([stays, taken], seeds=1), costs([stays, replace(taken, price=0.1)], seeds=1)
    assert dear[0].nodes < dear[1].nodes
    assert dear[1].sent_again > 0
    assert dear[1].ratio == pytest.approx(dear[1].nodes * 0.3 / dear[0].nodes, abs=1e-4)
    assert [row.nodes for row in cheap] == [row.nodes for row in dear]
    assert cheap[1].ratio == pytest.approx(dear[1].ratio / 3, abs=1e-4)


def test_an_sla_that_no_fleet_attains_is_an_error() -> None:
    with pytest.raises(ValueError, match="attain"):
        smallest_fleet((replace(SMALL, deadline_seconds=0.5), 1))


def test_the_document_tells_every_assumption() -> None:
    compared = offers(2.0, 0.5)
    told = as_document([], compared)["assumptions"]
    assert [one["price"] for one in told] == [2.0, 0.5, 0.5, 0.5]
    assert [one["scenario"]["notices"] + one["scenario"]["deaths"] for one in told] == [0.0, 1.0, 6.0, 1.0]
    assert [one["scenario"]["neighbours"] for one in told] == [False, False, False, True]
