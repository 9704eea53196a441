"""The router's weights: who is held back, what is recomputed when, and that every pick can be told."""

from __future__ import annotations

import pytest

from rayline.app_spec import SchedulingPolicy
from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from scheduler.router import Router, phase_of
from scheduler.view import View


def report(node: str, *, seq: int = 1, host_cpu: float | None = None, own_cpu: float = 0.0, actors: int = 4) -> NodeReport:
    endpoints = tuple(ActorEndpoint("app", "1", f"a{n}", "h", 1, 2, f"{node}.{n}") for n in range(actors))
    load = None if host_cpu is None else NodeLoad(cores=float(actors), host_cpu=host_cpu, own_cpu=own_cpu, jobs_in_flight=0)
    return NodeReport("c", node, 1, seq, NodeState.READY, float(actors), actors=endpoints, beat=True, load=load)


def router_over(view: View, *reports: NodeReport, now: float = 0.0, router: Router | None = None, phase: float = 0.0) -> Router:
    router = router or Router(app="app", phase=phase, seed=1)
    view.apply(reports, now)
    router.refresh(view, "1", now)
    return router


def test_a_node_whose_cores_are_taken_waits_until_the_others_are_full() -> None:
    router = router_over(View(), report("free", host_cpu=0.0), report("taken", host_cpu=1.0))
    picked = [router.pick(0.0) for _ in range(8)]
    assert [target and target.node_name for target in picked] == ["free"] * 4 + ["taken"] * 4
    assert router.pick(0.0) is None


def test_a_policy_that_does_not_hold_back_uses_nodes_whose_cores_are_taken_from_its_first_update_on() -> None:
    router = router_over(View(), report("free", host_cpu=0.0), report("taken", host_cpu=1.0))
    router.set_policy("static")
    router.wake(0.0)
    picked = [router.pick(0.0) for _ in range(4)]
    assert sorted(target.node_name for target in picked if target) == ["free", "free", "taken", "taken"]


def test_without_samples_the_default_shares_by_cores() -> None:
    router = router_over(View(), report("big", actors=6), report("small", actors=2))
    nodes = []
    for _ in range(80):
        target = router.pick(0.0)
        assert target is not None
        nodes.append(target.node_name)
        router.finished(target, 0.0, seconds=0.01)
    assert nodes.count("big") == 60


def test_weights_are_recomputed_at_once_for_news_of_nodes_and_else_when_due() -> None:
    view = View()
    router = router_over(view, report("a"), report("b"))
    assert set(router.weights()) == {"c/a", "c/b"}
    view.apply([NodeReport("c", "b", 1, 2, NodeState.DRAINING)], 0.1)
    router.refresh(view, "1", 0.1)
    assert set(router.weights()) == {"c/a"}
    before = router.explain_node("c/a")
    router.wake(0.2)
    assert router.explain_node("c/a") == before
    router.set_interval(0.05)
    router.wake(0.3)
    after = router.explain_node("c/a")
    assert before is not None
    assert after is not None
    assert after["update"] == before["update"] + 1


def test_another_policy_is_in_force_from_the_next_wake_and_nonsense_is_refused() -> None:
    router = router_over(View(), report("a"))
    router.set_policy("wechat")
    router.wake(0.0)
    assert router.policy is SchedulingPolicy.WECHAT
    with pytest.raises(ValueError, match="fastest"):
        router.set_policy("fastest")
    with pytest.raises(ValueError, match="above 0"):
        router.set_interval(0.0)


def test_a_pick_tells_what_was_weighed() -> None:
    router = router_over(View(), report("a", host_cpu=0.5), report("b", host_cpu=0.5))
    assert router.pick(0.0, {"c/a"}, batch="b-1") is not None
    told = router.explain_pick("b-1")
    assert [(pick["node"], pick["avoided"], pick["tier"]) for pick in told] == [("c/b", ("c/a",), "room")]
    assert set(told[0]["weights"]) == {"c/a", "c/b"}
    node = router.explain_node("c/b")
    assert node is not None
    assert node["running"] == 1
    assert set(node["factors"]) == {"cores", "room", "speed", "health", "ramp"}
    assert router.explain_node("c/x") is None


def test_a_restarted_node_begins_small_again() -> None:
    view = View()
    router = router_over(view, report("a"), report("b"))
    router_over(view, report("a", seq=2), report("b", seq=2), now=60.0, router=router)
    router_over(view, NodeReport("c", "b", 2, 1, NodeState.READY, 4.0, actors=report("b").actors), now=61.0, router=router)
    weights = router.weights()
    assert weights["c/b"] < weights["c/a"] / 5


def test_lanes_that_are_numbered_begin_far_from_each_other() -> None:
    phases = sorted(phase_of(f"lane-{number}") for number in range(8))
    assert phases == [number / 8 for number in range(8)]
    first = {router_over(View(), report("a", actors=8), phase=phase).pick(0.0) for phase in phases}
    assert len({target.endpoint.name for target in first if target}) == 8


def test_where_others_work_as_well_a_lane_takes_its_share_of_each_node_before_more_of_any() -> None:
    view = View()
    router = router_over(view, report("a", actors=8), report("b", actors=8))
    ours = [router.pick(0.0) for _ in range(4)]
    assert None not in ours
    # 2 of the 8 cores in use on each are ours: other lanes will fill most of what is left.
    router_over(view, *(report(n, seq=2, host_cpu=0.0, own_cpu=4.0, actors=8) for n in "ab"), now=1.0, router=router)
    router_over(view, *(report(n, seq=3, host_cpu=0.5, own_cpu=4.0, actors=8) for n in "ab"), now=2.0, router=router)
    for target in ours:
        assert target is not None
        router.finished(target, 2.0, seconds=2.0)
    picks = [router.pick(2.0, batch=f"b{number}") for number in range(16)]
    assert None not in picks
    tiers = [pick.tier.name for pick in router.picks()[-16:]]
    assert tiers == ["ROOM"] * 8 + ["IDLE"] * 8


def test_a_lane_alone_has_all_the_room_there_is() -> None:
    view = View()
    router = router_over(view, report("a", actors=8))
    target = router.pick(0.0)
    assert target is not None
    router_over(view, report("a", seq=2, host_cpu=0.125, own_cpu=1.0, actors=8), now=1.0, router=router)
    for _ in range(7):
        assert router.pick(1.0) is not None
    assert {pick.tier.name for pick in router.picks()} == {"ROOM"}
