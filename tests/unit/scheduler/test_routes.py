"""Routes say what the view says, whatever was reported in between, and look only at what changed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rayline.reports import ActorEndpoint, NodeReport, NodeState
from scheduler.routes import Route, Routes
from scheduler.view import FORGET_AFTER_SECONDS, View
from tests.support.routable import routable

NODES = [f"n{number}" for number in range(5)]


def actor(node: str, version: str, app: str = "app") -> ActorEndpoint:
    return ActorEndpoint(app, version, "a", "h", 1, 2, f"{app}.{node}.{version}")


class AsTheView(RuleBasedStateMachine):
    """Reports of any kind at any time, silences, deafness, rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.view = View()
        self.routes = Routes("app")
        self.known: dict[str, Route] = {}
        self.now = 0.0
        self.seq = 0
        self.version = "1"
        self.beside: tuple[str, ...] | None = None
        self.quiet_steps = 0

    @rule(
        nodes=st.sets(st.sampled_from(NODES), min_size=1),
        incarnation=st.integers(1, 2),
        state=st.sampled_from([NodeState.READY, NodeState.READY, NodeState.READY, NodeState.STARTING, NodeState.DRAINING]),
        versions=st.one_of(st.none(), st.sets(st.sampled_from(["1", "2", "3"]))),
        cordoned=st.sampled_from([None, None, True, False]),
        age_ms=st.sampled_from([0, 0, 2_000, 5_000]),
        interval_ms=st.sampled_from([1_000, 1_000, 3_000]),
    )
    def report(
        self,
        nodes: set[str],
        incarnation: int,
        state: NodeState,
        versions: set[str] | None,
        cordoned: bool | None,
        age_ms: int,
        interval_ms: int,
    ) -> None:
        self.seq += 1
        self.view.apply(
            [
                NodeReport(
                    "c",
                    node,
                    incarnation,
                    self.seq,
                    state,
                    actors=None if versions is None else (actor(node, "1", "other"), *(actor(node, v) for v in sorted(versions))),
                    beat=True,
                    age_ms=age_ms,
                    cordoned=cordoned,
                    interval_ms=interval_ms,
                )
                for node in sorted(nodes)
            ],
            self.now,
        )

    @rule(seconds=st.sampled_from([0.1, 1.0, 1.6, 2.1, 4.0, FORGET_AFTER_SECONDS + 100]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(version=st.sampled_from(["1", "2"]))
    def roll_out(self, version: str) -> None:
        self.version = version

    @rule(beside=st.sampled_from([None, (), ("1",), ("3", "2")]))
    def let_versions_stand_beside_each_other(self, beside: tuple[str, ...] | None) -> None:
        self.beside = beside

    @rule()
    def look_at_another_view(self) -> None:
        view = View()
        view.apply(self.view.reports(self.now), self.now, ears=self.view.ears)
        self.view = view

    @rule()
    def skip(self) -> None:
        """Nobody asks for some steps."""
        self.quiet_steps = 4

    @invariant()
    def routes_are_what_the_view_says(self) -> None:
        self.quiet_steps -= 1
        if self.quiet_steps > 0:
            return
        expected = routable(self.view, "app", self.version, self.now, self.beside)
        changes = self.routes.update(self.view, self.version, self.now, beside=self.beside)
        assert changes.gone == sorted(changes.gone)
        for key in changes.gone:
            del self.known[key]
        for route in changes.come:
            assert route.key not in self.known
            self.known[route.key] = route
        told = {route.key: route for route in changes.told}
        assert {route.key for route in changes.come} <= told.keys() <= self.known.keys()
        self.known.update(told)
        assert {key: route.endpoints for key, route in self.known.items()} == {key: entry[1] for key, entry in expected.items()}
        for key, (node_view, _) in expected.items():
            facts = self.known[key].node
            assert (facts.incarnation, facts.heard) == (node_view.report.incarnation, node_view.heard)


AsTheView.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAsTheView = AsTheView.TestCase


def report(node: str, seq: int) -> NodeReport:
    return NodeReport("c", node, 1, seq, NodeState.READY, actors=(actor(node, "1"),), beat=True)


def test_an_update_tells_only_of_those_that_were_heard() -> None:
    view, routes = View(), Routes("app")
    view.apply([report(node, 1) for node in NODES], 0.0)
    assert [route.key for route in routes.update(view, "1", 0.0).come] == [f"c/{node}" for node in NODES]
    view.apply([report("n3", 2)], 1.0)
    changes = routes.update(view, "1", 1.0)
    assert (changes.gone, changes.come, [route.key for route in changes.told]) == ([], [], ["c/n3"])
    changes = routes.update(view, "1", 1.1)
    assert (changes.gone, changes.come, changes.told) == ([], [], [])


def test_looks_for_silence_do_not_pile_up_while_nodes_come_and_go() -> None:
    view, routes = View(), Routes("app")
    for turn in range(50):
        view.apply([report("n0", turn)], turn * 5.0)
        routes.update(view, "1", turn * 5.0)
        view.apply([report("n1", turn)], turn * 5.0 + 4.0)
        routes.update(view, "1", turn * 5.0 + 4.0)
    assert len(routes._silences) <= 2


def test_a_node_that_beats_more_often_from_now_on_is_missed_earlier() -> None:
    view, routes = View(), Routes("app")
    view.apply([replace(report("n0", 1), interval_ms=3_000), report("n1", 1)], 0.0)
    routes.update(view, "1", 0.0)
    view.apply([replace(report("n0", 2), interval_ms=1_000)], 0.5)
    routes.update(view, "1", 0.5)
    for second in (1, 2, 3, 4, 5):
        view.apply([report("n1", second + 1)], float(second))
    assert routes.update(view, "1", 5.0).gone == ["c/n0"]
