"""Versions beside each other: each gets the share that its weight and the capacity of its nodes give it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.app_spec import SchedulingPolicy
from rayline.reports import ActorEndpoint, NodeReport, NodeState
from rayline.versions import VersionWeights
from scheduler.router import Router
from scheduler.view import View

OLD, NEW = "1+aaaaaaaaaaaa", "2+bbbbbbbbbbbb"
PICKS = 2_000


def report(node: str, *versions: str, seq: int = 1, cpus: float = 1.0) -> NodeReport:
    actors = tuple(ActorEndpoint("app", version, f"{node}.{version}", "h", 1, 2, f"{node}.{version}") for version in versions)
    return NodeReport("c", node, 1, seq, NodeState.READY, cpus, actors=actors, beat=True)


class Site:
    def __init__(self, *reports: NodeReport, weights: dict[str, float] | None = None, version: str = NEW) -> None:
        self.view, self.version = View(), version
        self.router = Router(app="app", policy=SchedulingPolicy.STATIC, seed=1)
        self.weigh(weights or {})
        self.hear(*reports)

    def hear(self, *reports: NodeReport, at: float = 0.0) -> None:
        self.view.apply(reports, at)
        self.router.refresh(self.view, self.version, at)

    def weigh(self, weights: dict[str, float]) -> None:
        self.router.set_versions(VersionWeights(weights), beside=() if weights else None)
        self.router.refresh(self.view, self.version, 0.0)

    def went(self, picks: int = 100) -> Counter[str]:
        """Where batches go that end at once, by version."""
        found: Counter[str] = Counter()
        for _ in range(picks):
            target = self.router.pick(0.0)
            if target is None:
                break
            found[target.endpoint.version] += 1
            self.router.finished(target, 0.0, seconds=0.01)
        return found


@given(
    nodes=st.lists(st.tuples(st.sampled_from([OLD, NEW, "3"]), st.sampled_from([1.0, 2.0, 8.0])), min_size=2, max_size=12),
    weights=st.dictionaries(
        st.sampled_from(["1", NEW, "bbbb", "3"]), st.sampled_from([0.0, 0.01, 0.1, 1.0, 10.0, 1000.0]), min_size=1
    ),
)
def test_shares_are_those_of_capacity_times_weight(nodes: list[tuple[str, float]], weights: dict[str, float]) -> None:
    site = Site(*(report(f"n{at}", version, cpus=cpus) for at, (version, cpus) in enumerate(nodes)), weights=weights)
    given_weights = VersionWeights(weights)
    parts: Counter[str] = Counter()
    for version, cpus in nodes:
        parts[version] += cpus * given_weights.of(version)  # type: ignore[assignment]
    total = sum(parts.values())
    went = site.went(PICKS)
    if not total:
        assert not went
        assert site.router.closed_since == 0.0
        return
    assert site.router.closed_since is None
    for version, part in parts.items():
        # Each node's picks are within one of its share, and so by how many nodes there are.
        assert abs(went[version] - PICKS * part / total) <= 1 + len(nodes)


def test_without_weights_a_version_that_is_rolled_out_takes_all_as_ever() -> None:
    site = Site(report("old", OLD), report("new", NEW))
    assert site.went() == {NEW: 100}
    site.weigh({"2": 0.25})
    assert site.went() == {OLD: 80, NEW: 20}
    site.weigh({})
    assert site.went() == {NEW: 100}


def test_weights_far_apart_and_of_many_cores_stay_within_what_a_rotation_holds() -> None:
    site = Site(report("old", OLD, cpus=1.0), report("new", NEW, cpus=65_000.0), weights={"2": 1000.0})
    site.router.set_factors(lambda node: 1000.0 if node == "c/new" else 0.001)
    site.router.refresh(site.view, NEW, 0.0)
    assert site.went() == {NEW: 100}


def test_a_node_that_answers_with_another_version_has_that_ones_weight_at_once() -> None:
    site = Site(report("a", OLD), report("b", OLD), weights={"2": 0.0})
    assert site.went() == {OLD: 100}
    site.hear(report("b", OLD, NEW, seq=2), at=0.1)
    assert site.went() == {OLD: 100}
    assert {target.node_name for _ in range(9) if (target := site.router.pick(0.1))} == {"a"}
    site.hear(report("a", NEW, seq=3), at=0.2)
    assert site.router.pick(0.2) is None
    assert site.router.closed_since == 0.2
    site.weigh({"2": 0.1})
    assert site.router.closed_since is None
    assert site.router.pick(0.3) is not None


def test_the_weights_of_cluster_and_node_count_as_well() -> None:
    site = Site(report("old", OLD), report("new", NEW), weights={"2": 0.5})
    site.router.set_factors(lambda node: 2.0 if node == "c/new" else 1.0)
    site.router.refresh(site.view, NEW, 0.0)
    assert site.went() == {OLD: 50, NEW: 50}
    told = site.router.explain_node("c/new")
    assert told is not None
    assert (told["version"], told["share"]) == (NEW, 0.5)
    assert {name: told["factors"][name] for name in ("traffic", "version")} == {"traffic": 2.0, "version": 0.5}


def test_a_node_and_a_pick_tell_the_weight_of_their_version_and_others_nothing() -> None:
    site = Site(report("old", OLD), report("new", NEW), weights={"2": 0.1, "1": 0.0})
    (closed, new) = (site.router.explain_node(f"c/{name}") for name in ("old", "new"))
    assert closed is not None
    assert new is not None
    assert (closed["weight"], closed["share"], closed["factors"]["version"]) == (0.0, 0.0, 0.0)
    assert (new["weight"], new["share"]) == (pytest.approx(0.1), 1.0)
    assert site.router.pick(0.0, batch="b") is not None
    assert (site.router.last_pick() or b"").endswith(b",version=0.1")
    assert site.router.explain_pick("b")[0]["weights"] == {"c/new": pytest.approx(0.1), "c/old": 0.0}
    site.weigh({"1": 1.0})
    assert site.router.pick(0.0) is not None
    assert b"version" not in (site.router.last_pick() or b"")
