"""The view: the same whatever the order, number and delay of the reports it is made of."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.reports import ActorEndpoint, NodeReport, NodeState
from scheduler.view import FORGET_AFTER_SECONDS, SUSPECT_AFTER_SECONDS, View
from tests.support.routable import routable


def endpoint(instance: str, version: str = "1", app: str = "app") -> ActorEndpoint:
    return ActorEndpoint(app, version, "a", "h", 1, 2, instance)


def report(
    node: str = "n", incarnation: int = 1, seq: int = 1, state: NodeState = NodeState.READY, **fields: object
) -> NodeReport:
    return NodeReport("c", node, incarnation, seq, state, **fields)  # type: ignore[arg-type]


reports = st.lists(
    st.builds(
        report,
        node=st.sampled_from(["n1", "n2"]),
        incarnation=st.integers(1, 3),
        seq=st.integers(1, 6),
        state=st.sampled_from(list(NodeState)),
        cpus=st.one_of(st.none(), st.sampled_from([1.0, 2.0, 4.0])),
        zone=st.one_of(st.none(), st.sampled_from(["z1", "z2"])),
        actors=st.one_of(st.none(), st.lists(st.builds(endpoint, st.sampled_from("ab")), max_size=2).map(tuple)),
        reason=st.one_of(st.none(), st.sampled_from(["notice", "idle"])),
    ),
    min_size=1,
    max_size=12,
)


@given(reports, st.data())
def test_any_order_and_repetition_of_reports_gives_the_same_view(given_reports: list[NodeReport], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(given_reports), max_size=8))
    shuffled = data.draw(st.permutations(given_reports + again))
    cuts = data.draw(st.sets(st.integers(0, len(shuffled))))
    straight, other = View(), View()
    straight.apply(given_reports, 100.0)
    for number, (start, end) in enumerate(pairwise(sorted({0, len(shuffled), *cuts}))):
        other.apply(shuffled[start:end], 100.0 + number)
    assert [node.report for node in other.nodes()] == [node.report for node in straight.nodes()]


@given(reports)
def test_an_older_incarnation_never_overwrites_and_states_only_move_forward(given_reports: list[NodeReport]) -> None:
    view = View()
    for one in given_reports:
        before = view.get(one.key)
        view.apply([one], 0.0)
        after = view.get(one.key)
        assert after is not None
        if before is not None:
            assert after.report.incarnation >= before.report.incarnation
            if after.report.incarnation == before.report.incarnation:
                assert after.report.state >= before.report.state
            if one.incarnation < before.report.incarnation:
                assert after == before


def test_a_notice_without_actors_drains_the_node_and_keeps_its_actors() -> None:
    view = View()
    view.apply([report(seq=5, actors=(endpoint("a"),), cpus=4.0)], 0.0)
    view.apply([report(seq=1, state=NodeState.DRAINING, reason="preempted")], 1.0)
    (node,) = view.nodes()
    assert (node.report.state, node.report.reason, node.report.cpus) == (NodeState.DRAINING, "preempted", 4.0)
    assert node.report.actors == (endpoint("a"),)
    assert routable(view, "app", "1", 1.0) == {}


def test_a_plain_beat_is_no_news_and_each_change_is() -> None:
    view = View()
    assert view.apply([report(seq=1, actors=(endpoint("a"),))], 0.0)
    assert not view.apply([report(seq=2, actors=(endpoint("a"),))], 1.0)
    assert view.apply([report(seq=3, actors=(endpoint("b"),))], 2.0)
    assert view.apply([report(seq=4, state=NodeState.DRAINING, actors=(endpoint("b"),))], 3.0)
    assert view.apply([report(seq=5, state=NodeState.DRAINING, actors=(endpoint("b"),))], 3.1 + SUSPECT_AFTER_SECONDS)


def test_a_silent_node_is_left_out_as_long_as_another_one_is_heard() -> None:
    view = View()
    view.apply([report("n1", actors=(endpoint("a"),)), report("n2", actors=(endpoint("b"),))], 0.0)
    late = SUSPECT_AFTER_SECONDS + 0.1
    assert set(routable(view, "app", "1", late)) == {"c/n1", "c/n2"}, "with every reporter silent the last view stays"
    view.apply([report("n2", seq=2, actors=(endpoint("b"),))], late)
    assert set(routable(view, "app", "1", late)) == {"c/n2"}


@pytest.mark.parametrize(("wanted", "found"), [("2", {"b"}), ("1", {"a"}), ("3", {"a", "b"})])
def test_the_version_in_force_counts_and_any_other_only_before_it_is_there(wanted: str, found: set[str]) -> None:
    view = View()
    view.apply(
        [report("n1", actors=(endpoint("a", "1"), endpoint("x", app="other"))), report("n2", actors=(endpoint("b", "2"),))], 0.0
    )
    ready = routable(view, "app", wanted, 0.0)
    assert {actor.instance for _, actors in ready.values() for actor in actors} == found


def test_nodes_that_are_long_gone_are_forgotten_but_not_while_all_are_silent() -> None:
    view = View()
    view.apply([report(f"gone-{number}", state=NodeState.GONE) for number in range(50)], 0.0)
    view.apply([report("here")], 1.0)
    view.apply([], 2 * FORGET_AFTER_SECONDS)
    assert len(view.nodes()) == 51
    assert view.apply([report("here", seq=2)], 4 * FORGET_AFTER_SECONDS)
    assert [node.key for node in view.nodes()] == ["c/here"]


def test_a_copy_knows_the_same_and_goes_its_own_way() -> None:
    view = View()
    view.apply([report("n1", beat=True, cpus=2.0), report("n2", seq=3, beat=True)], 1.0)
    other = view.copy()
    assert (other.nodes(), other.ears, other.revision) == (view.nodes(), view.ears, view.revision)
    other.apply([report("n1", seq=9, state=NodeState.DRAINING), report("n3")], 2.0)
    assert [node.key for node in view.nodes()] == ["c/n1", "c/n2"]
    assert view.nodes()[0].report.state is NodeState.READY
    assert other.nodes()[0].report.cpus == 2.0


def test_a_node_is_lost_after_the_bound_but_never_before_it_is_suspect() -> None:
    view = View(lost_after_seconds=10.0)
    view.apply([report("often", beat=True), report("seldom", beat=True, interval_ms=5_000)], 0.0)

    def standings(now: float) -> dict[str, str]:
        view.apply([], now, ears=now)
        return {key: str(standing) for key, _, standing in view.standings(now)}

    assert standings(9.9) == {"c/often": "suspect", "c/seldom": "ready"}
    assert standings(10.1) == {"c/often": "lost", "c/seldom": "ready"}
    assert standings(17.6) == {"c/often": "lost", "c/seldom": "lost"}
    view.lost_after_seconds = 60.0
    assert standings(17.6) == {"c/often": "suspect", "c/seldom": "suspect"}
