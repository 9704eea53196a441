"""The simulation: the same world for everybody, the bars of the default in small, and what evictions and slow nodes do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from bench.scheduling.engine import Run, Simulation
from bench.scheduling.node import SimBatch, SimNode
from bench.scheduling.policies import ALL, FORMULA, PERFECT
from bench.scheduling.scenario import Chances, News, Scenario
from bench.scheduling.tables import FORMULA_BAR, PERFECT_BAR, answer, bars, questions
from rayline.reports import NodeState

SMALL = Scenario(nodes=20, cores=(2, 8), seconds=25.0, warm_up_seconds=8.0)


def run(policy: str, scenario: Scenario = SMALL, seed: int = 0) -> Run:
    return Simulation(scenario, seed, ALL[policy]).run()


def test_the_default_keeps_its_bars_in_small() -> None:
    rows = [answer((question, policy)) for question in questions(quick=True) for policy in question.policies]
    reached = bars(rows)
    assert [bar.limit for bar in reached] == [PERFECT_BAR, FORMULA_BAR] * 2
    assert all(bar.met for bar in reached), reached


def test_a_run_is_determined_by_scenario_and_seed() -> None:
    assert run("headroom").latencies == run("headroom").latencies
    assert run("headroom").latencies != run("headroom", seed=1).latencies


def test_every_policy_sees_the_same_jobs() -> None:
    assert len({run(policy).arrived for policy in ("headroom", PERFECT, FORMULA, "random")}) == 1


@pytest.mark.parametrize("policy", list(ALL))
def test_no_job_is_lost_to_evictions(policy: str) -> None:
    evicted = replace(SMALL, load=0.3, notices=60.0, deaths=60.0, replacement_seconds=2.0)
    outcome = run(policy, evicted)
    assert outcome.again > 0
    assert outcome.unfinished == 0
    assert len(outcome.latencies) == outcome.arrived


def test_a_node_that_came_and_went_between_two_looks_was_never_in_rotation() -> None:
    node = SimNode(name="n", cores=2, incarnation=1)
    lane = ALL[FORMULA]({"c/n": node}, 0, Chances(0))
    ready = node.report(0.0)
    node.state = NodeState.DRAINING
    lane.hear([ready, node.report(0.1)], 0.2)
    assert lane.choose(SimBatch(1, 0.2, 1.0, 0), 0.2) is None


def test_without_retries_jobs_fail_and_far_fewer_where_a_notice_is_heard() -> None:
    evicted = replace(SMALL, load=0.5, notices=120.0, replacement_seconds=5.0)

    def outcome(news: News, *, retry: bool) -> Run:
        return run("headroom", replace(evicted, news=news, retry=retry))

    for news in News:
        kept = outcome(news, retry=True)
        assert (kept.failed, kept.unfinished) == (0, 0)
        assert len(kept.latencies) == kept.arrived
    failed = {news: outcome(news, retry=False).failed for news in News}
    assert max(failed[News.AT_ONCE], failed[News.ARTICLE]) < failed[News.NONE] / 5


def test_a_lane_that_pulls_goes_on_sending_to_a_node_until_its_next_pull() -> None:
    leaving = replace(SMALL, load=0.5, notices=120.0, replacement_seconds=5.0)

    def sent_after_notice(news: News) -> int:
        simulation = Simulation(replace(leaving, news=news), 0, ALL["headroom"])
        sent = 0
        add = SimNode.add

        def count(node: SimNode, batch: SimBatch, now: float) -> None:
            nonlocal sent
            sent += node.state is not NodeState.READY
            add(node, batch, now)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SimNode, "add", count)
            simulation.run()
        return sent

    assert sent_after_notice(News.AT_ONCE) == 0
    assert sent_after_notice(News.ARTICLE) > 0


def test_of_100_jobs_on_20_nodes_swrr_gives_each_five_and_hashing_does_not() -> None:
    nodes = {f"c/n{number:02}": SimNode(f"n{number:02}", 4, incarnation=1) for number in range(20)}
    reports = [node.report(1.0) for node in nodes.values()]
    shares = {}
    for policy in ("static SWRR", "consistent hashing"):
        lane = ALL[policy](nodes, 0, Chances(0))
        lane.hear(reports, 1.0)
        chosen = [lane.choose(SimBatch(number, 1.0, 1.0, 0), 1.0) for number in range(100)]
        shares[policy] = Counter(node.name for node in chosen if node is not None)
    assert set(shares["static SWRR"].values()) == {5}
    hashed = [shares["consistent hashing"][node.name] for node in nodes.values()]
    assert sum(hashed) == 100
    assert max(hashed) - min(hashed) >= 5


def test_several_lanes_do_not_run_into_each_other() -> None:
    alone, many = run("headroom"), run("headroom", replace(SMALL, lanes=4))
    assert many.quantile(0.99) < 2 * alone.quantile(0.99)


def test_a_batch_behind_another_lanes_long_one_goes_elsewhere() -> None:
    crowded = replace(SMALL, lanes=8)
    patient, impatient = run("headroom", replace(crowded, patience_seconds=1e9)), run("headroom", crowded)
    assert patient.refused == 0
    assert impatient.refused > 0
    assert impatient.unfinished == 0
    assert impatient.quantile(0.99) < patient.quantile(0.99)


def test_batches_share_the_cores_that_neighbours_leave() -> None:
    node = SimNode("n", 4, 1, neighbour=0.5)
    for number in range(4):
        node.add(SimBatch(number, 0.0, 1.0, 0, seat=number), 0.0)
    assert node.next_end() == pytest.approx(2.0)
    node.advance(1.0)
    node.neighbour = 0.0
    assert node.next_end() == pytest.approx(1.5)
    report = node.report(1.0)
    assert report.load is not None
    assert (report.load.own_cpu, report.load.host_cpu, report.load.jobs_in_flight) == (2.0, 1.0, 4)


def test_a_batch_waits_at_its_own_actor_though_others_are_free() -> None:
    node = SimNode("n", 2, 1)
    for number in range(2):
        node.add(SimBatch(number, 0.0, 1.0, 0, seat=0), 0.0)
    assert node.running == 1
    assert node.end_one(1.0).number == 0
    assert node.running == 1
    assert node.next_end() == 2.0
