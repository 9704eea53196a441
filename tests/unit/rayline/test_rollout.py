"""Roll-outs by share: who takes the newest version is the same everywhere and only grows; no deployment moves the others."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rayline.app_spec import AppSpec
from rayline.config import AppValues
from rayline.rollout import Shares, place_of, with_previous

NODES = [f"c{number % 3}/pod-{number}" for number in range(600)]
SHARES = st.floats(0, 1)
VERSIONS = st.sampled_from("ABCD")


def spec(version: str, previous: str | None = None) -> AppSpec:
    return AppSpec("app", version, f"/{version}", "m:f", previous=None if previous is None else spec(previous))


def shares(share: float, app: str = "app") -> Shares:
    return Shares(AppValues({app: (7, share)}))


def versions(deployed: AppSpec, share: float) -> dict[str, str]:
    """What each node runs."""
    return {node: shares(share).spec_on(deployed, node).version for node in NODES[:40]}


@given(less=SHARES, more=SHARES)
def test_a_larger_share_never_takes_a_node_back(less: float, more: float) -> None:
    less, more = sorted((less, more))
    small, large = versions(spec("B", "A"), less), versions(spec("B", "A"), more)
    assert all(large[node] == "B" for node, version in small.items() if version == "B")


def test_none_and_all_are_exact_and_what_lies_between_is_spread_over_clusters_and_differs_by_app() -> None:
    assert set(versions(spec("B", "A"), 0.0).values()) == {"A"}
    assert set(versions(spec("B", "A"), 1.0).values()) == {"B"}
    assert set(versions(spec("B"), 0.0).values()) == {"B"}, "there is none before it"
    assert Shares().takes_newest(spec("B", "A"), "c/p")
    assert shares(0.0, "other").takes_newest(spec("B", "A"), "c/p")
    for cluster in ("c0", "c1", "c2"):
        taking = [node for node in NODES if node.startswith(cluster) and place_of("app", node) < 0.3]
        assert 0.2 < len(taking) / 200 < 0.4
    assert {node for node in NODES if place_of("app", node) < 0.1} != {node for node in NODES if place_of("ocr", node) < 0.1}


def test_the_place_of_a_node_is_the_same_in_every_process_and_release() -> None:
    assert [round(place_of("app", node), 6) for node in NODES[:3]] == [0.136031, 0.024747, 0.610352]


def test_each_version_comes_with_its_own_spec_also_through_kafka() -> None:
    deployed = replace(spec("B", "A"), prefetch="sha256:3")
    assert shares(0.0).spec_on(deployed, "c/p") == spec("A")
    assert shares(1.0).spec_on(deployed, "c/p") == deployed
    assert AppSpec.from_dict(deployed.as_dict()) == deployed


def test_those_left_out_come_in_the_order_in_which_they_change() -> None:
    left = shares(0.5).left_out(spec("B", "A"), NODES)
    places = [place_of("app", node) for node in left]
    assert places == sorted(places)
    assert min(places) >= 0.5


@given(steps=st.lists(st.tuples(VERSIONS, SHARES | st.just(1.0)), min_size=1, max_size=8))
def test_a_deployment_changes_no_node_outside_of_the_share_unless_it_is_of_the_version_that_they_have(
    steps: list[tuple[str, float]],
) -> None:
    running: AppSpec | None = None
    for version, share in steps:
        deployed = with_previous(spec(version), running, share)
        if running is not None:
            before, after = versions(running, share), versions(deployed, share)
            outside = [node for node in before if place_of("app", node) >= share]
            assert all(after[node] == before[node] for node in outside)
            taking = set(before) - set(outside)
            assert all(after[node] == version for node in taking)
        assert deployed.previous is None or deployed.previous.previous is None
        running = deployed


def test_a_canary_that_is_bad_is_left_by_deploying_what_the_others_have_and_a_mended_one_takes_its_place() -> None:
    canary = with_previous(spec("B"), spec("A"), 0.1)
    assert canary == spec("B", "A")
    assert with_previous(spec("A"), canary, 0.1) == spec("A")
    assert with_previous(spec("C"), canary, 0.1) == spec("C", "A")
    assert with_previous(spec("C"), canary, 1.0) == spec("C", "B")
    assert with_previous(spec("B"), canary, 0.1) == canary, "deployed again, as it is"
