"""The keeper's decisions: it converges from anywhere, acts once for a loss, keeps its limits and its patience."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayline.clusters import Lease, Phase
from scheduler.keeper import ActionKind, Limits, NodeFact
from tests.unit.scheduler.keeper.world import World

CLUSTERS = ("c1", "c2", "c3")


def world(pods: int = 3, clusters: int = 2, limits: Limits | None = None) -> World:
    made = World(limits=limits or Limits())
    for cluster in CLUSTERS[:clusters]:
        made.want(cluster, pods)
    made.settle()
    return made


def kinds(made: World) -> Counter[ActionKind]:
    return Counter(action.kind for action in made.actions)


def test_clusters_and_all_their_pods_are_ordered_in_one_turn() -> None:
    made = World()
    made.want("c1", 3)
    made.want("c2", 3)
    made.step()
    assert kinds(made) == {ActionKind.BUILD: 2, ActionKind.START_POD: 6}
    assert [len(order.pods) for order in made.book.orders.values()] == [3, 3]


def test_nothing_happens_while_nobody_could_carry_it_out() -> None:
    made = World()
    made.book.executor = None
    made.want("c1", 3)
    assert made.step() == []


def test_a_lost_pod_is_replaced_once_in_its_cluster_under_a_new_name() -> None:
    made = world()
    made.now_ms += 60_000
    before = made.running("c1")
    made.end_pod("c1", before[0])
    assert [action.kind for action in made.step()] == [ActionKind.REPLACE_POD]
    (replaced,) = made.actions[-1:]
    assert (replaced.replaces, replaced.reason) == (before[0], "killed")
    assert replaced.pod not in before
    # The executor has not said anything yet, and says it twice afterwards: still the same loss.
    assert made.step() == []
    made.carry_out()
    made.carry_out()
    assert made.step() == []
    assert len(made.running("c1")) == 3
    assert made.running("c2") == ["c2-pod-1", "c2-pod-2", "c2-pod-3"]


def test_a_lost_head_means_a_new_cluster_and_the_other_one_is_left_alone() -> None:
    made = world()
    before, other = made.running("c1"), made.book.orders["c2"]
    made.end_head("c1")
    assert [action.kind for action in made.step()][:2] == [ActionKind.DISCARD, ActionKind.BUILD]
    order = made.book.orders["c1"]
    assert order.generation == 2
    assert not set(order.pods) & set(before)
    assert made.book.orders["c2"] == other
    assert made.step() == []


def test_in_a_new_cluster_one_pod_comes_before_the_others_for_a_while() -> None:
    for waits in (False, True):
        made = world()
        made.end_head("c1")
        made.step()
        made.carry_out()
        (first,) = made.book.orders["c1"].pods
        made.step()
        assert list(made.book.orders["c1"].pods) == [first]
        if waits:
            made.now_ms += Limits().ahead_ms + 1
        else:
            made.nodes[first] = NodeFact(joined=True, seen=True)
        made.step()
        assert len(made.book.orders["c1"].pods) == 3


def test_a_successor_neither_repeats_nor_forgets() -> None:
    made = world()
    made.end_pod("c1", "c1-pod-2")
    made.step()
    made.new_keeper()
    assert made.step() == []
    made.end_head("c2")
    made.new_keeper()
    assert kinds(made)[ActionKind.DISCARD] == 0
    made.step()
    assert kinds(made)[ActionKind.DISCARD] == 1


def test_an_order_of_an_epoch_that_has_passed_counts_for_nothing() -> None:
    made = world()
    order = made.book.orders["c1"]
    made.new_keeper()
    assert not made.book.take(replace(order, revision=order.revision + 1, wanted=False))
    assert made.book.orders["c1"] == order
    assert not made.book.take(Lease(made.book.epoch, "another"))


def test_what_the_executors_former_life_ran_is_built_anew_under_new_names() -> None:
    made = world()
    used = set(made.started)
    made.new_executor()
    made.settle()
    assert sorted(len(made.running(cluster)) for cluster in CLUSTERS[:2]) == [3, 3]
    assert not used & set(made.running("c1") + made.running("c2"))


def test_a_pod_that_gave_notice_is_replaced_before_it_ends_within_the_surge() -> None:
    made = world(limits=Limits(surge=1))
    leaving = NodeFact(joined=False, seen=True, leaving=True)
    made.nodes |= {"c1-pod-1": leaving, "c1-pod-2": leaving}
    assert [action.replaces for action in made.step()] == ["c1-pod-1"]
    made.carry_out()
    assert len(made.running("c1")) == 4
    made.end_pod("c1", "c1-pod-1", noticed=True)
    made.end_pod("c1", "c1-pod-2", noticed=True)
    assert [action.replaces for action in made.step()] == ["c1-pod-2"]
    made.settle()
    assert len(made.running("c1")) == 3
    assert kinds(made)[ActionKind.BACK_OFF] == 0


def test_scaling_adds_and_takes_away_no_more_than_was_asked_for() -> None:
    made = world(pods=2, clusters=1)
    kept = made.running("c1")
    made.want("c1", 4)
    made.settle()
    assert len(made.running("c1")) == 4
    made.want("c1", 1)
    made.settle()
    assert made.running("c1") == kept[:1]
    made.want("c1", 0)
    made.settle()
    assert made.running("c1") == []
    assert not made.book.orders["c1"].wanted
    made.want("c1", 2)
    made.settle()
    assert len(made.running("c1")) == 2
    assert made.book.orders["c1"].generation == 2


def test_what_keeps_failing_waits_twice_as_long_each_time_and_says_why() -> None:
    made = world(pods=1, clusters=1)
    delays = []
    for _ in range(9):
        (pod,) = made.running("c1")
        made.end_pod("c1", pod, reason="no GPU")
        lost_at = made.now_ms
        while not made.running("c1"):
            made.step()
            assert made.running("c1") or made.wake_at_ms is None or made.book.orders["c1"].slots[0].backoff.reason == "no GPU"
            made.carry_out()
            if not made.running("c1"):
                assert made.wake_at_ms is not None
                made.now_ms = made.wake_at_ms
        delays.append(made.now_ms - lost_at)
    policy = made.limits.backoff
    assert delays[:4] == [0, policy.first_ms, 2 * policy.first_ms, 4 * policy.first_ms]
    assert delays[-1] == policy.cap_ms
    made.settle()
    assert made.book.orders["c1"].slots[0].backoff.failures == 0, "a healthy time clears the count"


def test_a_clock_that_was_set_back_makes_nothing_wait_for_ever() -> None:
    made = world(pods=1, clusters=1)
    for _ in range(2):
        (pod,) = made.running("c1")
        made.end_pod("c1", pod)
        made.step()
        made.carry_out()
    assert made.running("c1") == []
    made.now_ms -= 3_600_000
    made.step()
    made.carry_out()
    assert len(made.running("c1")) == 1


def test_a_pod_that_never_joins_is_given_up_and_one_that_only_froze_is_waited_for() -> None:
    made = world(pods=2, clusters=1)
    made.nodes["c1-pod-1"] = NodeFact(seen=True, silent_ms=60_000)
    assert made.step() == []
    made.nodes["c1-pod-1"] = NodeFact(seen=True, silent_ms=made.limits.silent_ms + 1)
    assert [action.replaces for action in made.step()] == ["c1-pod-1"]
    made.carry_out()
    made.now_ms += made.limits.join_ms + 1
    (action,) = made.step()
    assert (action.kind, action.pod) == (ActionKind.BACK_OFF, "c1-pod-3"), "the second failure of this place in a row"
    assert action.reason is not None
    assert "did not join" in action.reason


def test_with_everybody_silent_nobody_is_given_up() -> None:
    made = world(pods=2, clusters=1)
    made.nodes = {pod: NodeFact(seen=True, silent_ms=10**9) for pod in made.running("c1")}
    assert made.step() == []


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_pods_start_at_once_than_allowed(limit: int) -> None:
    made = World(limits=Limits(starting_pods=limit))
    for cluster in CLUSTERS:
        made.want(cluster, 4)
    for _ in range(20):
        made.step()
        made.carry_out()
        starting = [pod for cluster in CLUSTERS for pod in made.running(cluster) if pod not in made.nodes]
        assert len(starting) <= limit
        made.join()
    assert [len(made.running(cluster)) for cluster in CLUSTERS] == [4, 4, 4]


accidents = st.lists(
    st.tuples(
        st.sampled_from(["pod", "notice", "head", "executor", "keeper", "scale", "step", "carry out", "join", "wait", "remove"]),
        st.integers(0, 5),
        st.sampled_from(CLUSTERS),
    ),
    max_size=60,
)


def cause(made: World, what: str, number: int, cluster: str) -> None:
    """One accident, or one turn of somebody."""
    running, actual = made.running(cluster), made.book.actual.get(cluster)
    match what:
        case "pod" | "notice" if running:
            made.end_pod(cluster, running[number % len(running)], noticed=what == "notice")
        case "head" if actual is not None and actual.head is not None and actual.head.phase is Phase.RUNNING:
            made.end_head(cluster)
        case "executor":
            made.new_executor()
        case "keeper":
            made.new_keeper()
        case "scale":
            made.want(cluster, number)
        case "remove":
            made.book.desired.pop(cluster, None)
        case "step":
            made.step()
        case "carry out":
            made.carry_out()
        case "join":
            made.join()
        case "wait":
            made.now_ms += 400 * number


@settings(max_examples=300, deadline=None)
@given(accidents)
def test_from_any_state_it_converges_and_acts_once_for_each_loss(story: list[tuple[str, int, str]]) -> None:
    made = World(limits=Limits(starting_pods=4, building_clusters=2))
    made.want("c1", 2)
    for what, number, cluster in story:
        cause(made, what, number, cluster)
        for order in made.book.orders.values():
            wanted = made.book.desired.get(order.cluster)
            if what == "step":
                assert len(order.pods) <= (wanted.pods if wanted else 0)
            assert len(order.leaving) <= made.limits.surge
    made.now_ms += 60_000
    made.settle()
    for cluster in CLUSTERS:
        desired = made.book.desired.get(cluster)
        pods = desired.pods if desired is not None else 0
        order = made.book.orders.get(cluster)
        assert len(made.running(cluster)) == pods
        assert (order is not None and order.wanted) == (pods > 0)
        if order is not None and pods:
            assert sorted(order.pods) == sorted(made.running(cluster))
            head = made.book.actual[cluster].head
            assert head is not None
            assert head.phase is Phase.RUNNING
    assert len(set(made.started)) == len(made.started), "a name was used twice"
    replaced = Counter((action.cluster, action.replaces) for action in made.actions if action.kind is ActionKind.REPLACE_POD)
    assert set(replaced.values()) <= {1}, "one loss, one replacement"
    assert made.step() == []
