"""The plan of a cluster's actors: what it may never do, and that it gets where it wants to."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rayline.app_spec import AppSpec, Resources
from workers.pool import (
    Action,
    ActorKey,
    ActorPhase,
    Drain,
    Failures,
    Observed,
    Place,
    PodNode,
    Remove,
    plan,
    share_node,
    wanted_models,
    withheld,
)


def spec(name: str, version: str = "v1", **fields: object) -> AppSpec:
    return AppSpec(name=name, version=version, root="/", entrypoint="m:f", **fields)  # type: ignore[arg-type]


def node(pod: str = "p", incarnation: int = 1, cpus: float = 2, gpus: float = 0) -> PodNode:
    return PodNode(node_id=f"id-{pod}-{incarnation}", pod=pod, incarnation=incarnation, cpus=cpus, gpus=gpus)


apps_of_a_cluster = st.dictionaries(
    st.sampled_from("abc"),
    st.tuples(st.sampled_from(["v1", "v2"]), st.sampled_from([0.5, 1.0, 2.0]), st.none() | st.integers(1, 3)),
    max_size=3,
).map(
    lambda chosen: {
        name: spec(name, version, resources=Resources(num_cpus=cpus), actors_per_node=per_node)
        for name, (version, cpus, per_node) in chosen.items()
    }
)
nodes_of_a_cluster = st.lists(
    st.builds(node, st.sampled_from("pq"), st.integers(1, 2), st.sampled_from([1.0, 4.0])),
    max_size=3,
    unique_by=lambda item: item.pod,
)
keys = st.builds(
    ActorKey, st.sampled_from("abc"), st.sampled_from(["v1", "v2"]), st.sampled_from("pq"), st.integers(1, 2), st.integers(0, 3)
)
observed = st.builds(Observed, st.sampled_from(ActorPhase), st.just(0.0))
actors_of_a_cluster = st.dictionaries(keys, observed, max_size=12)


def apply(actors: dict[ActorKey, Observed], actions: list[Action]) -> dict[ActorKey, Observed]:
    """A cluster in which every action works: what was placed is ready, what was drained is gone, by the next round."""
    after = {
        key: Observed(ActorPhase.READY, 0.0)
        for key, actor in actors.items()
        if actor.phase in (ActorPhase.READY, ActorPhase.STARTING)
    }
    after |= {key: actor for key, actor in actors.items() if actor.phase is ActorPhase.FAILED}
    for action in actions:
        if isinstance(action, Place):
            after[action.key] = Observed(ActorPhase.READY, 0.0)
        else:
            after.pop(action.key, None)
    return after


@given(apps=apps_of_a_cluster, nodes=nodes_of_a_cluster, actors=actors_of_a_cluster)
def test_the_plan_settles_at_exactly_what_is_wanted(
    apps: dict[str, AppSpec], nodes: list[PodNode], actors: dict[ActorKey, Observed]
) -> None:
    for _ in range(6):
        actors = apply(actors, plan(apps=apps, nodes=nodes, actors=actors, failures={}, now=0.0))
    assert plan(apps=apps, nodes=nodes, actors=actors, failures={}, now=0.0) == []
    wanted = {
        ActorKey(app, apps[app].version, item.pod, item.incarnation, index)
        for item in nodes
        for app, count in share_node(item, list(apps.values())).items()
        for index in range(count)
    }
    assert set(actors) == wanted


@given(apps=apps_of_a_cluster, nodes=nodes_of_a_cluster, actors=actors_of_a_cluster, kept=st.sets(st.sampled_from("pq")))
def test_each_node_settles_at_its_own_version_and_an_actor_that_is_ready_goes_only_for_a_successor(
    apps: dict[str, AppSpec], nodes: list[PodNode], actors: dict[ActorKey, Observed], kept: set[str]
) -> None:
    older = {name: replace(one, version="v0") for name, one in apps.items()}

    def spec_on(one: AppSpec, item: PodNode) -> AppSpec:
        return older[one.name] if item.pod in kept else one

    for _ in range(6):
        actions = plan(apps=apps, nodes=nodes, actors=actors, failures={}, now=0.0, spec_on=spec_on)
        for action in actions:
            if isinstance(action, Drain) and action.key.app in apps:
                (item,) = (item for item in nodes if item.pod == action.key.pod)
                version = spec_on(apps[action.key.app], item).version
                count = share_node(item, list(apps.values()))[action.key.app]
                wanted = {ActorKey(action.key.app, version, item.pod, item.incarnation, index) for index in range(count)}
                ready = {key for key, actor in actors.items() if actor.phase is ActorPhase.READY}
                assert action.key.version == version or wanted <= ready
        actors = apply(actors, actions)
    assert {(key.app, key.pod, key.version) for key in actors} == {
        (name, item.pod, "v0" if item.pod in kept else apps[name].version) for name in apps for item in nodes
    }


@given(apps=apps_of_a_cluster, nodes=nodes_of_a_cluster, actors=actors_of_a_cluster)
def test_each_actor_gets_at_most_one_action_and_only_living_nodes_get_new_ones(
    apps: dict[str, AppSpec], nodes: list[PodNode], actors: dict[ActorKey, Observed]
) -> None:
    actions = plan(apps=apps, nodes=nodes, actors=actors, failures={}, now=0.0)
    assert len({action.key for action in actions}) == len(actions)
    for action in actions:
        if isinstance(action, Place):
            assert action.key not in actors
            assert action.node_id in {item.node_id for item in nodes}
        else:
            assert action.key in actors


@given(apps=apps_of_a_cluster, nodes=nodes_of_a_cluster, actors=actors_of_a_cluster)
def test_a_ready_old_version_stays_until_its_successors_there_are_ready(
    apps: dict[str, AppSpec], nodes: list[PodNode], actors: dict[ActorKey, Observed]
) -> None:
    for action in plan(apps=apps, nodes=nodes, actors=actors, failures={}, now=0.0):
        if not isinstance(action, Drain) or action.key.app not in apps or action.key.version == apps[action.key.app].version:
            continue
        here = next(item for item in nodes if (item.pod, item.incarnation) == (action.key.pod, action.key.incarnation))
        wanted = share_node(here, list(apps.values()))[action.key.app]
        ready = [
            key
            for key, actor in actors.items()
            if (key.app, key.pod, key.incarnation) == (action.key.app, here.pod, here.incarnation)
            and key.version == apps[action.key.app].version
            and actor.phase is ActorPhase.READY
        ]
        assert len([key for key in ready if key.index < wanted]) == wanted


@given(actors=actors_of_a_cluster, nodes=nodes_of_a_cluster)
def test_actors_of_apps_not_decided_yet_stay_as_they_are(actors: dict[ActorKey, Observed], nodes: list[PodNode]) -> None:
    living = {(item.pod, item.incarnation) for item in nodes}
    for action in plan(apps={}, nodes=nodes, actors=actors, failures={}, now=0.0, held={"a", "b", "c"}):
        assert isinstance(action, Remove)
        assert (action.key.pod, action.key.incarnation) not in living


@given(name=st.text(max_size=20), version=st.text(max_size=20), pod=st.text(max_size=20), index=st.integers(0, 99))
def test_a_name_in_ray_leads_back_to_its_key(name: str, version: str, pod: str, index: int) -> None:
    key = ActorKey(name, version, pod, 1234567890123, index)
    assert ActorKey.parse(key.name) == key


def test_names_of_others_are_not_ours() -> None:
    for name in ("", "rayline", "rayline:a:v:p:0", "rayline:a:v:p@x:0", "rayline:a:v:p@1:x", "other:a:v:p@1:0"):
        assert ActorKey.parse(name) is None


def test_apps_share_a_node_in_turn() -> None:
    assert share_node(node(cpus=5), [spec("a"), spec("b")]) == {"a": 3, "b": 2}
    assert share_node(node(cpus=4), [spec("a"), spec("b", resources=Resources(num_cpus=2.0))]) == {"a": 2, "b": 1}
    assert share_node(node(cpus=4), [spec("a", actors_per_node=1), spec("b")]) == {"a": 1, "b": 3}


def test_an_app_larger_than_the_node_still_gets_one_actor() -> None:
    assert share_node(node(cpus=1), [spec("a", resources=Resources(num_cpus=8.0))]) == {"a": 1}


def test_gpus_are_never_promised_twice() -> None:
    shares = share_node(node(cpus=8, gpus=1), [spec(name, resources=Resources(num_gpus=1.0)) for name in "ab"])
    assert shares == {"a": 1, "b": 0}


def test_the_old_owner_of_a_gpu_goes_before_the_new_one_is_ready() -> None:
    app = spec("a", "v2", resources=Resources(num_gpus=1.0))
    old = ActorKey("a", "v1", "p", 1, 0)
    actions = plan(apps={"a": app}, nodes=[node(gpus=1)], actors={old: Observed(ActorPhase.READY, 0.0)}, failures={}, now=0.0)
    assert Drain(old) in actions


def test_an_app_that_cannot_load_is_tried_again_ever_more_slowly() -> None:
    key = ActorKey("a", "v1", "p", 1, 0)
    now, waits = 0.0, []
    for count in range(1, 10):
        failures = {key: Failures(count, now)}
        failed = {key: Observed(ActorPhase.FAILED, now)}
        failed_at = now
        while not plan(apps={"a": spec("a")}, nodes=[node(cpus=1)], actors=failed, failures=failures, now=now):
            now += 0.5
        waits.append(now - failed_at)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def key(models: int = 0, *, index: int = 0, version: str = "v1") -> ActorKey:
    return ActorKey("a", version, "p", 1, index, models)


def test_actors_made_for_a_generation_of_models_have_names_of_their_own() -> None:
    for one in (key(), key(7), ActorKey("a:b", "v/1", "p@x", 3, 2, 12)):
        assert ActorKey.parse(one.name) == one
    assert key().name != key(7).name
    assert ActorKey.parse(f"{key(7).name}:8") is None


def test_old_models_stay_until_as_many_new_actors_are_ready_as_old_ones() -> None:
    apps, nodes = {"a": spec("a", actors_per_node=2)}, [node(cpus=2)]
    old = {key(index=index): Observed(ActorPhase.READY, 0.0) for index in range(2)}
    models = wanted_models(dict.fromkeys(old, 9))
    assert models == {("a", "p", 1): 9}
    placed = plan(apps=apps, nodes=nodes, actors=old, failures={}, now=0.0, models=models)
    assert placed == [Place(key(9, index=index), "id-p-1") for index in range(2)]
    half = old | {key(9): Observed(ActorPhase.READY, 0.0), key(9, index=1): Observed(ActorPhase.STARTING, 0.0)}
    assert plan(apps=apps, nodes=nodes, actors=half, failures={}, now=0.0, models=models) == []
    assert withheld({key(), key(index=1), key(9)}) == {key(9)}
    ready = half | {key(9, index=1): Observed(ActorPhase.READY, 0.0)}
    assert plan(apps=apps, nodes=nodes, actors=ready, failures={}, now=0.0, models=models) == [
        Drain(key()),
        Drain(key(index=1)),
    ]
    assert withheld(set(ready)) == set()
    assert withheld({key(9)}) == set()


def test_a_generation_that_actors_were_made_for_stays_wanted_after_the_gateway_is_new() -> None:
    adopted = {key(9): 0, key(9, index=1): 0, key(4, index=2): 0}
    assert wanted_models(adopted) == {("a", "p", 1): 9}
    assert wanted_models({key(): 0}) == {}


def test_a_gpu_is_let_go_before_the_actor_with_the_new_model_gets_it() -> None:
    apps, nodes = {"a": spec("a", resources=Resources(num_gpus=1))}, [node(gpus=1)]
    actors = {key(): Observed(ActorPhase.READY, 0.0)}
    assert plan(apps=apps, nodes=nodes, actors=actors, failures={}, now=0.0, models={("a", "p", 1): 9}) == [
        Drain(key()),
        Place(key(9), "id-p-1"),
    ]
