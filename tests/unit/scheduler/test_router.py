"""The router: shares by weight where nothing is full, never more in flight than slots, and nobody sent where he should not be."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rayline.reports import ActorEndpoint, NodeReport, NodeState
from scheduler.router import QUEUE_BEHIND_SECONDS, Router, Target
from scheduler.view import View
from scheduler.weights import StaticWeights
from tests.support.routable import routable

SLOTS = 3


def report(
    node: str, *, cpus: float = 1.0, actors: int = 1, incarnation: int = 1, seq: int = 1, state: NodeState = NodeState.READY
) -> NodeReport:
    endpoints = tuple(ActorEndpoint("app", "1", "a", "h", 1, SLOTS, f"{node}.{incarnation}.{n}") for n in range(actors))
    return NodeReport("c", node, incarnation, seq, state, cpus, actors=endpoints)


def router_over(*reports: NodeReport) -> tuple[Router, View]:
    view, router = View(), Router(app="app", policy=StaticWeights())
    view.apply(reports, 0.0)
    router.refresh(view, "1", 0.0)
    return router, view


def run(router: Router, batches: int, now: float = 0.0) -> Counter[str]:
    """So many batches, one after the other: nothing is ever full."""
    nodes: Counter[str] = Counter()
    for _ in range(batches):
        target = router.pick(now)
        assert target is not None
        nodes[target.node_name] += 1
        router.finished(target, now, seconds=0.001)
    return nodes


def test_weights_5_1_1_get_exactly_their_shares_and_renormalise_when_one_is_gone() -> None:
    router, view = router_over(report("a", cpus=5), report("b"), report("c"))
    assert run(router, 700) == {"a": 500, "b": 100, "c": 100}
    view.apply([report("b", seq=2, state=NodeState.GONE)], 1.0)
    router.refresh(view, "1", 1.0)
    assert run(router, 600, 1.0) == {"a": 500, "c": 100}
    view.apply([report("a", seq=2, cpus=5, state=NodeState.DRAINING)], 2.0)
    router.refresh(view, "1", 2.0)
    assert run(router, 50, 2.0) == {"c": 50}


def test_an_idle_node_comes_before_a_place_behind_a_running_batch() -> None:
    router, _ = router_over(report("big", cpus=50), report("small"))
    for target in [router.pick(0.0) for _ in range(2)]:
        assert target is not None
        router.finished(target, 0.0, seconds=0.001)
    running = [router.pick(0.0) for _ in range(2 * (SLOTS - 1))]
    assert Counter(target.node_name for target in running if target) == {"big": SLOTS - 1, "small": SLOTS - 1}


@pytest.mark.parametrize(
    ("seconds", "execute_seconds", "places"),
    [
        (QUEUE_BEHIND_SECONDS / 2, None, SLOTS),
        (QUEUE_BEHIND_SECONDS * 2, None, SLOTS - 1),
        (QUEUE_BEHIND_SECONDS * 2, QUEUE_BEHIND_SECONDS / 2, SLOTS),
    ],
)
def test_a_place_in_the_queue_is_offered_only_behind_batches_that_run_shortly(
    seconds: float, execute_seconds: float | None, places: int
) -> None:
    router, _ = router_over(report("a"))
    first = router.pick(0.0)
    assert first is not None
    router.finished(first, 0.0, seconds=seconds, execute_seconds=execute_seconds)
    assert sum(router.pick(0.0) is not None for _ in range(10)) == places


def test_a_node_to_avoid_is_avoided_while_there_is_another_and_only_then() -> None:
    router, view = router_over(report("a", cpus=100), report("b"))
    picked = [router.pick(0.0, avoid={"c/a"}) for _ in range(SLOTS)]
    assert [target and target.node_name for target in picked] == ["b"] * (SLOTS - 1) + [None]
    assert router.pick(0.0, avoid={"c/a", "c/b"}) is not None
    view.apply([report("b", seq=2, state=NodeState.GONE)], 0.0)
    router.refresh(view, "1", 0.0)
    target = router.pick(0.0, avoid={"c/a", "c/b"})
    assert target is not None
    assert target.node_name == "a"


def test_avoiding_a_node_once_does_not_change_its_share() -> None:
    router, _ = router_over(report("a", cpus=5), report("b"), report("c"))
    target = router.pick(0.0, avoid={"c/a"})
    assert target is not None
    router.finished(target, 0.0, seconds=0.001)
    assert run(router, 700)["a"] in range(498, 503)


def test_pauses_after_losses_grow_and_end() -> None:
    router, _ = router_over(report("a"))
    now, pauses = 0.0, []
    for _ in range(6):
        target = router.pick(now)
        assert target is not None
        router.finished(target, now, seconds=None)
        router.lost(target, now)
        paused = 0.0
        while router.pick(now + paused) is None:
            paused += 0.01
            router.wake(now + paused)
        again = router.pick(now + paused)
        now += paused
        pauses.append(round(paused, 1))
        for _ in range(2 if again else 1):
            router.finished(target, now, seconds=None)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


class RouterMachine(RuleBasedStateMachine):
    """Batches start and end in any order while nodes come, drain, vanish, fall silent and return."""

    def __init__(self) -> None:
        super().__init__()
        self.view, self.router = View(), Router(app="app", policy=StaticWeights())
        self.now = 0.0
        self.seq = 0
        self.flying: list[Target] = []
        self.said_draining: set[tuple[str, int]] = set()
        self.paused: dict[str, float] = {}

    @rule(
        node=st.sampled_from("abc"),
        actors=st.integers(0, 3),
        incarnation=st.integers(1, 3),
        state=st.sampled_from([NodeState.READY] * 4 + [NodeState.DRAINING, NodeState.GONE]),
    )
    def a_report_comes(self, node: str, actors: int, incarnation: int, state: NodeState) -> None:
        self.seq += 1
        self.view.apply([report(node, actors=actors, incarnation=incarnation, seq=self.seq, state=state)], self.now)
        self.router.refresh(self.view, "1", self.now)
        self._forget_who_left()

    def _forget_who_left(self) -> None:
        here = self.router.instances()
        self.paused = {instance: until for instance, until in self.paused.items() if instance in here}
        self.said_draining = {entry for entry in self.said_draining if entry[0] in routable(self.view, "app", "1", self.now)}

    @rule(seconds=st.sampled_from([0.05, 0.6, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.router.refresh(self.view, "1", self.now)
        self._forget_who_left()

    @rule(avoid=st.sets(st.sampled_from(["c/a", "c/b", "c/c"])))
    def a_batch_starts(self, avoid: set[str]) -> None:
        target = self.router.pick(self.now, avoid)
        if target is None:
            return
        ready = routable(self.view, "app", "1", self.now)
        assert target.node in ready, "sent where nobody is"
        assert ready[target.node][0].report.state is NodeState.READY
        assert (target.node, target.incarnation) not in self.said_draining
        assert self.now >= self.paused.get(target.endpoint.instance, 0.0), "sent to a paused actor"
        assert target.node not in avoid or set(ready) <= avoid
        self.flying.append(target)

    @rule(data=st.data(), fate=st.sampled_from(["done", "slow", "busy", "lost", "draining"]))
    def a_batch_ends(self, data: st.DataObject, fate: str) -> None:
        if not self.flying:
            return
        target = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        seconds = {"done": 0.01, "slow": 3.0}.get(fate)
        self.router.finished(target, self.now, seconds=seconds)
        if fate == "busy":
            self.router.busy(target, self.now)
            self._note_pause(target, 0.05)
        elif fate == "lost":
            self.router.lost(target, self.now)
            self._note_pause(target, 0.5)
        elif fate == "draining":
            self.router.draining(target, self.now)
            if target.endpoint.instance in self.router.instances():
                self.said_draining.add((target.node, target.incarnation))

    def _note_pause(self, target: Target, seconds: float) -> None:
        if target.endpoint.instance in self.router.instances():
            self.paused[target.endpoint.instance] = self.now + seconds

    @rule(actors=st.integers(0, 2))
    def an_actor_leaves_the_view_and_comes_back(self, actors: int) -> None:
        for count in (actors, 3):
            self.a_report_comes("a", count, 3, NodeState.READY)

    @invariant()
    def no_actor_has_more_in_flight_than_slots(self) -> None:
        assert all(count <= SLOTS for count in Counter(target.endpoint.instance for target in self.flying).values())


TestRouter = RouterMachine.TestCase
TestRouter.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)


def test_a_hedge_goes_nowhere_rather_than_to_what_it_avoids_or_behind_a_running_batch() -> None:
    router, _ = router_over(report("a"), report("b"))
    assert router.pick(0.0, {"c/a", "c/b"}, hedge=True) is None
    assert router.pick(0.0, {"c/a", "c/b"}) is not None
    targets = [router.pick(0.0, hedge=True) for _ in range(2 * SLOTS)]
    assert sum(target is not None for target in targets) == 2 * (SLOTS - 1) - 1


def test_an_actor_that_holds_a_suspect_gets_nothing_else_until_it_is_finished() -> None:
    router, _ = router_over(report("a"))
    other = router.pick(0.0)
    alone = router.pick(0.0, alone=True)
    assert other is not None
    assert alone is not None
    router.finished(other, 0.0, seconds=0.001)
    assert router.pick(0.0) is None
    router.finished(alone, 0.0, seconds=0.001, alone=True)
    assert router.pick(0.0) is not None
