"""From one version of a model to the next in the actors of a node: loaded beside, taken up together, in any order of events."""

from __future__ import annotations

import gc
import os
import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec, Limits, ModelSource, ModelSwap
from rayline.errors import ActorUnready
from rayline.models import BUNDLED, NodeModels, PlacedModel, PlacedModels
from workers.app_versions import AppVersions
from workers.loading import load_app
from workers.model_swap import RETRY_SECONDS, ModelFollower, choose_first, load_version
from workers.model_turn import ModelTurn, models_folder, write_placed

ONE, TWO, THREE = (PlacedModels(number, {"scale": PlacedModel(f"/m{number}", number)}) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("models", "served", "turn", "asked", "first"),
    [
        (NodeModels(0), False, 0, 0, BUNDLED),
        (NodeModels(1), False, 0, 0, None),
        (NodeModels(2, (ONE,)), False, 0, 0, ONE),
        (NodeModels(2, (ONE, TWO)), False, 1, 0, TWO),
        (NodeModels(2, (ONE, TWO)), True, 1, 0, ONE),
        (NodeModels(2, (ONE, TWO)), True, 0, 0, BUNDLED),
        (NodeModels(2, (ONE, TWO)), True, 1, 2, TWO),
        (NodeModels(3, (TWO, THREE)), True, 3, 2, THREE),
        (NodeModels(2, (ONE,)), True, 1, 2, None),
    ],
)
def test_an_actor_that_starts_loads_what_its_node_is_at(
    models: NodeModels, served: bool, turn: int, asked: int, first: PlacedModels | None
) -> None:
    assert choose_first(models, served=served, turn=turn, asked=asked) == first


class Actor:
    """One actor of the app, without a port and without a thread: `look` is what its thread does each time."""

    def __init__(self, spec: AppSpec, folder: Path, asked: int = 0) -> None:
        self.turn = ModelTurn(folder=folder)
        self.follower = ModelFollower(spec=spec, turn=self.turn, asked=asked)
        placed = self.follower.first()
        self.versions = AppVersions(
            served=load_version(placed, lambda: load_app(spec, placed.paths)), turn=self.turn.turn, advance=self.turn.advance
        )
        self.follower.loaded(self.versions)

    def look(self, now: float = 0.0) -> None:
        self.follower.step(self.versions, now)

    def call(self) -> tuple[str, str | None]:
        """Which model answers, and what the result says of it."""
        served = self.versions.take()
        assert served is not None
        return served.app.function(0), served.label

    @property
    def is_left_behind(self) -> bool:
        return self.versions.take() is None


class World:
    """A pod with models and actors of one app."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = models_folder(root / "pod", "app")
        self.actors: list[Actor] = []
        self.placed: tuple[PlacedModels, ...] = ()
        self.spec = self.app(
            """
            import os, pathlib
            class feature:
                def __init__(self):
                    self.text = pathlib.Path(os.environ["RAYLINE_MODEL_SCALE"]).read_text()
                def __call__(self, payload):
                    return self.text
            """
        )

    def app(self, source: str, swap: ModelSwap = ModelSwap.INSTANCE) -> AppSpec:
        name = f"feature_{abs(hash((self.root, source)))}"
        (self.root / f"{name}.py").write_text(textwrap.dedent(source))
        (self.root / "own").write_text("own")
        self.spec = AppSpec(
            "app",
            "1",
            str(self.root),
            f"{name}:feature",
            models=(ModelSource("scale", "own"),),
            model_swap=swap,
            limits=Limits(startup_seconds=0.2),
        )
        return self.spec

    def place(self, generation: int, text: str | None) -> None:
        models = {}
        if text is not None:
            path = self.root / f"model-{generation}"
            path.write_text(text)
            models = {"scale": PlacedModel(str(path), generation)}
        self.placed = (*self.placed, PlacedModels(generation, models))
        write_placed(self.folder, NodeModels(generation, self.placed))

    def start(self, asked: int = 0) -> Actor:
        self.actors.append(Actor(self.spec, self.folder, asked))
        return self.actors[-1]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAYLINE_MODEL_SCALE", raising=False)
    made = World(tmp_path)
    yield made
    for actor in made.actors:
        actor.turn.close()
    os.environ.pop("RAYLINE_MODEL_SCALE", None)


def test_without_a_published_model_the_source_beside_the_app_serves(world: World) -> None:
    assert world.start().call() == ("own", None)


def test_all_actors_of_a_node_take_up_a_model_together(world: World) -> None:
    first, second = world.start(), world.start()
    world.place(5, "five")
    first.look()
    first.look()
    assert first.call() == ("own", None)
    second.look()
    assert second.call() == ("five", "5:scale@5")
    assert first.call() == ("five", "5:scale@5")


def test_an_actor_that_still_loads_is_waited_for_and_one_that_is_gone_is_not(world: World) -> None:
    first, second = world.start(), world.start()
    starting = ModelTurn(folder=world.folder)
    world.place(5, "five")
    first.look()
    second.look()
    assert first.call() == ("own", None)
    starting.close()
    first.look()
    assert first.call() == ("five", "5:scale@5")


def test_an_actor_that_starts_again_in_the_middle_serves_what_its_neighbour_serves(world: World) -> None:
    world.place(5, "five")
    first = world.start()
    assert first.call() == ("five", "5:scale@5")
    world.place(6, "six")
    again = world.start()
    assert again.call() == ("five", "5:scale@5")
    first.look()
    again.look()
    assert first.call() == again.call() == ("six", "6:scale@6")


def test_actors_that_start_where_nobody_served_load_the_newest(world: World) -> None:
    world.place(5, "five")
    loading = ModelTurn(folder=world.folder)
    first, second = world.start(), world.start()
    assert second.call() == first.call() == ("five", "5:scale@5")
    loading.close()


def test_a_node_does_not_go_to_a_generation_that_one_of_its_actors_skipped(world: World) -> None:
    first, second = world.start(), world.start()
    world.place(5, "five")
    first.look()
    world.place(6, "six")
    second.look()
    first.turn.advance_together(5)
    assert first.call()[1] is None
    assert second.call()[1] is None
    first.look()
    assert first.call() == second.call() == ("six", "6:scale@6")


def test_going_back_to_the_bundles_own_model_is_a_newer_generation(world: World) -> None:
    actor = world.start()
    world.place(5, "five")
    actor.look()
    assert actor.call() == ("five", "5:scale@5")
    world.place(6, None)
    actor.look()
    assert actor.call() == ("own", "6:bundle")


@pytest.mark.parametrize("swap", list(ModelSwap))
def test_the_same_models_chosen_once_more_are_a_newer_generation_and_nothing_is_loaded(world: World, swap: ModelSwap) -> None:
    source = (
        "class feature:\n    made = []\n    def __init__(self): self.made.append(1)\n    def __call__(self, payload): return 0\n"
    )
    world.app(source, swap)
    world.place(5, "five")
    first, second = world.start(), world.start()
    assert first.call() == (0, "5:scale@5")
    made = len(first.versions.served.app.function.made)
    world.placed = (*world.placed, PlacedModels(6, world.placed[-1].models))
    write_placed(world.folder, NodeModels(6, world.placed))
    first.look()
    assert first.call() == (0, "5:scale@5")
    second.look()
    assert first.call() == second.call() == (0, "6:scale@5")
    assert len(first.versions.served.app.function.made) == made
    assert (first.follower.wanted_actor, second.follower.wanted_actor) == (0, 0)


def test_the_earlier_model_is_let_go_although_no_call_comes(world: World) -> None:
    actor = world.start()
    before = weakref.ref(actor.versions.served.app.function)
    world.place(5, "five")
    actor.look()
    gc.collect()
    assert before() is None


def test_a_model_that_does_not_load_leaves_the_earlier_one_serving_and_says_why(world: World) -> None:
    world.app(
        """
        import os, pathlib
        class feature:
            def __init__(self):
                self.text = pathlib.Path(os.environ["RAYLINE_MODEL_SCALE"]).read_text()
                if self.text == "bad":
                    raise ValueError("not a model of mine")
            def __call__(self, payload):
                return self.text
        """
    )
    actor = world.start()
    world.place(5, "bad")
    actor.look(now=100.0)
    assert actor.call() == ("own", None)
    assert actor.follower.problem is not None
    assert "not a model of mine" in actor.follower.problem
    (world.root / "model-5").write_text("good")
    actor.look(now=101.0)
    assert actor.call() == ("own", None)
    actor.look(now=100.0 + RETRY_SECONDS)
    assert actor.call() == ("good", "5:scale@5")
    assert actor.follower.problem is None


def test_a_class_with_with_models_makes_its_own_successor(world: World) -> None:
    world.app(
        """
        import pathlib
        class feature:
            def __init__(self, text="first", expensive=None):
                self.text, self.expensive = text, expensive or object()
            def __call__(self, payload):
                return self.text
            def with_models(self, models):
                return feature(pathlib.Path(models["scale"]).read_text(), self.expensive)
        """
    )
    actor = world.start()
    before = actor.versions.served.app.function
    world.place(5, "five")
    actor.look()
    assert actor.call()[0] == "five"
    assert actor.versions.served.app.function.expensive is before.expensive
    assert before(0) == "first"


def test_what_with_models_returns_must_be_callable_alike(world: World) -> None:
    world.app(
        """
        class feature:
            def __call__(self, payload):
                return "first"
            def with_models(self, models):
                return None
        """
    )
    actor = world.start()
    world.place(5, "five")
    actor.look()
    assert actor.call()[0] == "first"
    assert "returned a NoneType" in str(actor.follower.problem)


def test_where_the_app_wants_new_actors_the_old_one_asks_for_one_and_takes_no_call_once_it_serves(world: World) -> None:
    world.app("def feature(payload):\n    return 'five'\n", ModelSwap.ACTOR)
    old = world.start()
    assert old.follower.wanted_actor == 0
    world.place(5, "five")
    old.look()
    assert old.follower.wanted_actor == 5
    new = world.start(asked=5)
    new.look()
    assert old.call()[1] is None
    assert new.call() == ("five", "5:scale@5")
    assert old.is_left_behind


def test_a_function_cannot_be_swapped_in_place(world: World) -> None:
    world.app("def feature(payload):\n    return 0\n")
    with pytest.raises(ActorUnready, match="needs a class"):
        world.start()


def test_an_actor_whose_models_do_not_come_says_why(world: World) -> None:
    write_placed(world.folder, NodeModels(5, (), "the store does not answer"))
    with pytest.raises(ActorUnready, match="generation 5 are not on this node: the store does not answer"):
        world.start()


def test_the_turn_only_grows(tmp_path: Path) -> None:
    turn = ModelTurn(folder=tmp_path)
    turn.advance(2**40)
    turn.advance(3)
    assert turn.turn[0] == 2**40
    other = ModelTurn(folder=tmp_path)
    assert other.turn[0] == 2**40
    assert not other.is_served()
    turn.prepared(0)
    assert other.is_served()
    other.close()
    turn.close()
