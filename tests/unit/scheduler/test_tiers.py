"""Resources between nodes and lanes: the view is the same whether reports come straight, through one tier or through two."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState
from rayline.view_record import ViewKey, decode_view_record
from scheduler.listener import Heard
from scheduler.resource import WHOLE_EVERY_ROUNDS, Resource
from scheduler.view import FORGET_AFTER_SECONDS, Standing, View
from tests.support.routable import routable

Sent = tuple[float, NodeReport]


def endpoint(instance: str) -> ActorEndpoint:
    return ActorEndpoint("app", "1", "a", "h", 1, 2, instance)


def report(node: str = "n", incarnation: int = 1, seq: int = 1, cluster: str = "c", **fields: object) -> NodeReport:
    state = fields.pop("state", NodeState.READY)
    return NodeReport(cluster, node, incarnation, seq, state, **fields)  # type: ignore[arg-type]


# Times in whole milliseconds, as ages are.
sent = st.lists(
    st.tuples(
        st.integers(0, 5_000).map(lambda ms: ms / 1000),
        st.builds(
            report,
            node=st.sampled_from(["n1", "n2"]),
            incarnation=st.integers(1, 2),
            seq=st.integers(0, 6),
            state=st.sampled_from(list(NodeState)),
            cpus=st.none() | st.sampled_from([1.0, 2.0]),
            zone=st.none() | st.sampled_from(["z1", "z2"]),
            actors=st.none() | st.lists(st.builds(endpoint, st.sampled_from("ab")), max_size=2).map(tuple),
            reason=st.none() | st.sampled_from(["", "notice", "idle"]),
            beat=st.booleans(),
            load=st.none() | st.builds(NodeLoad, own_cpu=st.sampled_from([0.0, 0.5, 1.0])),
            cordoned=st.none() | st.booleans(),
            interval_ms=st.sampled_from([1000, 2000]),
        ),
    ),
    min_size=1,
    max_size=14,
)


def content(view: View, now: float) -> list[tuple[NodeReport, float, Standing | None]]:
    return [(node.report, round(node.heard, 6), view.standing(node.key, now)) for node in view.nodes()]


def straight(reports: list[Sent]) -> View:
    view = View()
    for at, one in reports:
        view.apply([one], at)
    return view


def pass_on(resource: Resource, now: float) -> list[Heard]:
    """What a reader hears of a round that is published at `now`."""
    resource.started(now)
    told = []
    for record in resource.records(now):
        if record.value is not None:
            decoded = decode_view_record(record.value)
            told.append(Heard(list(decoded.reports), now, now - decoded.ears_age_ms / 1000, record.key))
    return told


@given(sent, st.data())
def test_any_order_repetition_and_delay_through_any_number_of_tiers_gives_the_same_view(
    reports: list[Sent], data: st.DataObject
) -> None:
    expected = content(straight(reports), 6.0)
    tiers = data.draw(st.integers(1, 2))
    again = data.draw(st.lists(st.sampled_from(reports), max_size=6))
    heard = [Heard([one], at, at) for at, one in data.draw(st.permutations(reports + again))]
    for tier in range(tiers):
        resources = [Resource(name=f"r{number}", group=f"tier {tier}") for number in range(2)]
        # Each of them hears everything, or its part of it: the sum is what counts.
        for one in heard:
            for resource in data.draw(st.sampled_from([resources, resources[:1], resources[1:]])):
                resource.take(one)
        rounds = data.draw(st.integers(1, 4))
        heard = [
            told for resource in resources for number in range(rounds) for told in pass_on(resource, 5.1 + tier / 4 + number / 20)
        ]
    lane = View()
    for one in data.draw(st.permutations(heard)) * data.draw(st.integers(1, 2)):
        lane.apply(one.reports, one.at, ears=one.ears)
    assert content(lane, 6.0) == expected


@given(sent, st.data())
def test_what_comes_late_never_makes_a_node_look_younger(reports: list[Sent], data: st.DataObject) -> None:
    """A copy of an old beat that was long on the way is no proof of life."""
    view = straight(reports)
    before = {node.key: node.heard for node in view.nodes()}
    late = data.draw(st.lists(st.sampled_from(reports), max_size=6))
    for _, one in late:
        view.apply([one], 50.0)
    assert {node.key: node.heard for node in view.nodes()} == before


def test_a_frozen_pod_whose_gateway_still_reports_it_becomes_suspect_and_comes_back() -> None:
    view = View()
    view.apply([report(seq=1, beat=True), report("other", seq=1, beat=True)], 0.0)
    for second in range(1, 5):
        gateway = report(seq=1_000 + second, actors=(endpoint("a"),))
        view.apply([gateway, report("other", seq=1 + second, beat=True)], float(second))
    assert view.standing("c/n", 3.4) is Standing.READY
    assert view.standing("c/n", 4.0) is Standing.SUSPECT
    assert routable(view, "app", "1", 4.0) == {}
    assert "c/n" in view.apply([report(seq=2, beat=True)], 4.5), "a node that is heard again is news"
    assert set(routable(view, "app", "1", 4.5)) == {"c/n"}


def test_a_node_that_announces_longer_beats_is_given_longer() -> None:
    view = View()
    view.apply([report(beat=True, interval_ms=2000)], 0.0)
    assert not view.get("c/n").suspect(6.9)  # type: ignore[union-attr]
    assert view.get("c/n").suspect(7.1)  # type: ignore[union-attr]


def test_silence_of_everybody_at_once_makes_the_view_stale_and_nobody_suspect() -> None:
    view = View()
    for second in range(10):
        view.apply([report("n1", seq=second, beat=True, actors=(endpoint("a"),))], float(second))
        if second < 3:
            view.apply([report("n2", seq=second, beat=True, actors=(endpoint("b"),))], float(second))
    assert set(routable(view, "app", "1", 9.5)) == {"c/n1"}
    for later in (11.1, 100.0, 10_000.0):
        assert view.stale(later)
        assert set(routable(view, "app", "1", later)) == {"c/n1"}, "who was silent before stays so, nobody else becomes so"
    # A notice is heard while no beat is: it counts, and says nothing about the others.
    view.apply([report("n3", seq=1, beat=True, actors=(endpoint("c"),))], 100.0, ears=-math.inf)
    assert set(routable(view, "app", "1", 100.0)) == {"c/n1", "c/n3"}
    view.apply([report("n1", seq=99, state=NodeState.DRAINING)], 101.0, ears=-math.inf)
    assert set(routable(view, "app", "1", 101.0)) == {"c/n3"}


def test_a_cordoned_node_is_out_of_rotation_until_it_is_lifted() -> None:
    view = View()
    view.apply([report(seq=1, actors=(endpoint("a"),), cordoned=True, beat=True)], 0.0)
    assert routable(view, "app", "1", 0.0) == {}
    assert view.standing("c/n", 0.0) is Standing.CORDONED
    view.apply([report(seq=2, cordoned=None)], 0.1)
    assert view.standing("c/n", 0.1) is Standing.CORDONED, "a gateway does not know of cordons"
    view.apply([report(seq=3, cordoned=False, beat=True)], 0.2)
    assert set(routable(view, "app", "1", 0.2)) == {"c/n"}


def test_resources_pass_on_only_what_they_heard_themselves() -> None:
    """S05: R resources and N nodes make R(R-1) aggregates a round, whatever N is; nothing echoes."""
    resources = [Resource(name=f"r{number}") for number in range(3)]
    nodes = [report(f"n{number}", beat=True) for number in range(40)]
    for number, one in enumerate(nodes):
        resources[number % 3].take(Heard([one], 0.0, 0.0))
    delivered = 0
    for second in range(1, 4):
        rounds = {resource.name: pass_on(resource, float(second)) for resource in resources}
        for resource in resources:
            for name, told in rounds.items():
                for heard in told:
                    resource.take(heard)
                    delivered += name != resource.name
        for number, resource in enumerate(resources):
            own = {one.node for told in rounds[f"r{number}"] for one in told.reports}
            assert own == {f"n{index}" for index in range(40) if index % 3 == number}
            assert len(resource.view.nodes()) == 40
    assert delivered == 3 * len(resources) * (len(resources) - 1)


def test_a_resource_listens_to_its_clusters_and_its_group_only() -> None:
    resource = Resource(name="r", group="shop", clusters=["shop-*"])
    resource.take(Heard([report(cluster="shop-1"), report(cluster="ads-1")], 0.0, 0.0))
    assert [node.key for node in resource.view.nodes()] == ["shop-1/n"]
    assert {one.key for told in pass_on(resource, 1.0) for one in told.reports} == {"shop-1/n"}


def test_resources_with_numbered_names_take_turns() -> None:
    """Two that publish each second are heard half a second apart."""
    due = []
    for name in ("resource-0", "resource-1"):
        resource = Resource(name=name)
        resource.take(Heard([report()], 10.0, 10.0))
        pass_on(resource, 10.2)
        due.append(resource.due() % 1.0)
    assert abs(due[0] - due[1]) == pytest.approx(0.5)


def test_news_is_due_at_once_and_a_plain_beat_waits_for_the_round() -> None:
    resource = Resource(name="r")
    resource.take(Heard([report(seq=1, beat=True)], 0.0, 0.0))
    pass_on(resource, 0.0)
    resource.take(Heard([report(seq=2, beat=True)], 0.3, 0.3))
    assert 0.5 <= resource.due() <= 1.5
    resource.take(Heard([report(seq=3, beat=True, state=NodeState.DRAINING)], 0.4, 0.4))
    assert resource.due() < 0.4
    (record,) = resource.records(0.4)
    assert record.key == ViewKey("default", "r", "news")
    assert record.value is not None
    assert [one.state for one in decode_view_record(record.value).reports] == [NodeState.DRAINING]
    assert resource.records(0.45) == []


def test_chunks_stay_under_the_limit_and_what_is_no_longer_needed_is_ended() -> None:
    resource = Resource(name="r")
    many = [report(f"n{number}", beat=True, reason="x" * 1_000) for number in range(2_000)]
    resource.take(Heard(many, 0.0, 0.0))
    resource.started(0.0)
    first = resource.records(0.0)
    assert len(first) == 3
    assert all(record.value is not None and len(record.value) <= 1_000_000 for record in first)
    later = FORGET_AFTER_SECONDS + 10
    resource.take(Heard([report("alive", beat=True)], later, later))
    for number in range(WHOLE_EVERY_ROUNDS):
        ended = resource.records(later + number)
    assert [(record.key.chunk, record.value is None) for record in ended] == [("0", False), ("1", True), ("2", True)]


def test_a_dead_peers_records_are_ended_once_its_nodes_are_forgotten() -> None:
    resource = Resource(name="r1")
    resource.take(Heard([report()], 0.0, 0.0, ViewKey("default", "r2", "0")))
    resource.started(1.0)
    assert all(record.value is not None for record in resource.records(1.0))
    ended = resource.records(FORGET_AFTER_SECONDS + 1)
    assert [record.key for record in ended if record.value is None] == [ViewKey("default", "r2", "0")]


@pytest.mark.parametrize("known_before", [True, False])
def test_what_peers_know_is_no_event_and_everything_else_is_one_event_with_one_identity(known_before: bool) -> None:
    resources = [Resource(name="r1"), Resource(name="r2")]
    ready = report(seq=1, beat=True, actors=(endpoint("a"),))
    for resource in resources:
        if known_before:
            resource.take(Heard([ready], 0.0, 0.0, ViewKey("default", "r0", "0")))
        resource.take(Heard([ready, report("other", seq=1, beat=True)], 0.0, 0.0))
        resource.started(0.0)
    seen: list[list[tuple[str, str, str]]] = [[], []]

    def look(now: float) -> None:
        for events, resource in zip(seen, resources, strict=True):
            events += [(e.event.subject, e.event.kind, e.identity) for e in resource.events(now)]

    look(0.0)
    for second in range(1, 7):
        for resource in resources:
            resource.take(Heard([report("other", seq=1 + second, beat=True)], float(second), float(second)))
        look(float(second))
    for number, resource in enumerate(resources):
        # One of them hears one beat more before it looks.
        for seq in range(2, 3 + number + 1):
            resource.take(Heard([report(seq=seq, beat=True)], 6.5, 6.5))
    look(6.5)
    for resource in resources:
        resource.take(Heard([report(seq=9, beat=True, state=NodeState.DRAINING, reason="notice")], 6.6, 6.6))
    look(6.6)
    kinds = [kind for subject, kind, _ in seen[0] if subject == "c/n"]
    before = [] if known_before else ["node.joined", "node.ready"]
    assert kinds == [*before, "node.suspect", "node.recovered", "node.notice"]
    assert seen[0] == seen[1]


def test_a_notice_is_an_event_also_where_the_node_is_gone_before_anybody_looks() -> None:
    resource = Resource(name="r1")
    resource.started(0.0)
    for number, state in enumerate((NodeState.STARTING, NodeState.READY, NodeState.DRAINING, NodeState.GONE)):
        at = number / 100
        reason = "SIGTERM" if state is NodeState.DRAINING else None
        resource.take(Heard([report(seq=number, state=state, beat=True, reason=reason)], at, at))
    told = resource.events(1.0)
    assert [one.event.kind for one in told] == ["node.joined", "node.ready", "node.notice", "node.gone"]
    assert told[2].event.reason == "SIGTERM"
    assert resource.events(1.1) == []


def test_a_late_report_of_a_silent_node_is_no_recovery() -> None:
    resource = Resource(name="r1")
    resource.started(0.0)
    resource.take(Heard([report(seq=1, beat=True)], 0.0, 0.0))
    for second in range(1, 6):
        resource.take(Heard([report("other", seq=second, beat=True)], float(second), float(second)))
    resource.events(5.0)
    resource.take(Heard([report(seq=2, actors=(endpoint("a"),))], 1.0, -math.inf))
    assert resource.events(5.0) == []


def test_a_lane_that_stood_still_takes_nobody_for_silent_while_it_reads_what_it_missed() -> None:
    view = View()
    nodes = [f"n{number}" for number in range(6)]

    def told(at: float) -> list[NodeReport]:
        return [report(name, seq=round(at * 10), beat=True) for name in nodes if name != "n0" or at < 10.0]

    for second in range(11):
        view.apply(told(float(second)), float(second))
    for now in (15.0, 15.1):
        assert [node.key for node in view.nodes() if view.suspect(node.key, now)] == [], "what it missed is not read yet"
    for missed in (11.0, 12.0, 13.0, 14.0, 15.0):
        view.apply(told(missed), missed)
        silent = [node.key for node in view.nodes() if view.suspect(node.key, 15.2)]
        assert set(silent) <= {"c/n0"}
    assert silent == ["c/n0"], "who fell silent meanwhile is known once all is read"
