"""From the setting `models` to what actors are told: news come beside what is in place, failures are told and tried again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rayline.app_spec import ModelSource
from rayline.config import AppValues
from rayline.errors import StoreError
from rayline.models import ModelChoice, NodeModels, choices_value
from rayline.reports import ModelLoad
from runtime_env.build.cache import BuildCache
from runtime_env.build.model_layer import build_model
from runtime_env.node.folder import NodeFolder
from runtime_env.node.model_fetching import HeldModel, ModelFetcher
from runtime_env.node.source import StoreSource
from runtime_env.signing import Trust
from runtime_env.store import FolderStore, publish_model
from workers.model_placer import ModelPlacer
from workers.model_turn import ModelTurn, models_folder


class World:
    """A store, a node, and a pod on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pod = root / "pod"
        self.store = FolderStore(path=root / "store")
        self.folder = NodeFolder(path=root / "node", quota_bytes=2**30)
        source = StoreSource(store=self.store, cache=self.folder.blobs)
        trust = Trust(public_keys={}, development=True)
        self._fetcher = ModelFetcher(folder=self.folder, store=self.store, source=source, trust=trust)
        self.away = False
        self.placer = ModelPlacer(fetcher=self, pod_dir=self.pod)

    def fetch(self, app: str, name: str, choice: ModelChoice) -> HeldModel:
        if self.away:
            raise StoreError("the store does not answer")
        return self._fetcher.fetch(app, name, choice)

    def publish(self, text: str) -> ModelChoice:
        (self.root / "w.bin").write_text(text)
        built = build_model(BuildCache(path=self.root / "cache"), "app", self.root, ModelSource("m", "w.bin"))
        published = publish_model(self.store, built.release, built.blob, key=None).signed
        return ModelChoice(published.counter, published.release.digest)

    def choose(self, generation: int, choice: ModelChoice | None) -> None:
        value = choices_value({} if choice is None else {"m": choice})
        self.placer.set_models(AppValues({"app": (generation - 1, value)}))

    def text(self, path: str) -> str:
        return Path(path).read_text()

    def told(self) -> NodeModels:
        return NodeModels.decode((models_folder(self.pod, "app") / "placed.json").read_bytes())

    async def until(self, condition: Callable[[NodeModels], bool]) -> NodeModels:
        async with asyncio.timeout(60):
            # The file is what actors see, and nobody else tells of it.
            while not condition(self.told()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.told()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.placer.begin()
        task = asyncio.create_task(self.placer.run())
        yield
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_actors_are_told_what_to_wait_for_before_anything_is_fetched(world: World) -> None:
    world.choose(5, world.publish("one"))
    world.placer.begin()
    assert world.told() == NodeModels(5)


async def test_the_very_first_record_of_the_config_topic_is_no_choice_of_the_bundles_own_models(world: World) -> None:
    world.placer.set_models(AppValues({"app": (0, choices_value({"m": world.publish("one")}))}))
    world.placer.begin()
    assert world.told().wanted == 1
    async with world.running():
        told = await world.until(lambda told: told.newest is not None)
    assert told.newest is not None
    assert told.newest.label == "1:m@1"


async def test_versions_come_one_after_the_other_and_the_last_ones_stay(world: World) -> None:
    async with world.running():
        for generation, text in ((5, "one"), (6, "two"), (7, "three"), (8, "four")):
            world.choose(generation, world.publish(text))
            told = await world.until(lambda told, one=generation: told.of(one) is not None)  # type: ignore[misc]
        assert [one.generation for one in told.placed] == [6, 7, 8]
        assert [world.text(one.paths["m"]) for one in told.placed] == ["two", "three", "four"]
        turn = ModelTurn(folder=models_folder(world.pod, "app"))
        turn.advance(7)
        assert world.placer.told() == (ModelLoad("app", 8, 7),)
        turn.close()


async def test_what_cannot_be_fetched_is_told_and_comes_when_it_can_be(world: World) -> None:
    async with world.running():
        world.choose(5, world.publish("one"))
        await world.until(lambda told: told.of(5) is not None)
        world.away = True
        world.choose(6, world.publish("two"))
        told = await world.until(lambda told: told.problem is not None)
        assert (told.wanted, told.newest and told.newest.generation) == (6, 5)
        assert world.placer.told() == (ModelLoad("app", 6, 0, "the store does not answer"),)
        world.away = False
        told = await world.until(lambda told: told.of(6) is not None)
        assert told.problem is None


async def test_a_newer_choice_does_not_wait_for_one_that_is_still_fetched_to_be_told(world: World) -> None:
    slow, go_on = threading.Event(), threading.Event()
    fetch = world.fetch

    def held_up(app: str, name: str, choice: ModelChoice) -> HeldModel:
        slow.set()
        go_on.wait(60)
        return fetch(app, name, choice)

    world.fetch = held_up  # type: ignore[method-assign]
    async with world.running():
        world.choose(5, world.publish("one"))
        await asyncio.to_thread(slow.wait, 60)
        world.choose(6, world.publish("two"))
        assert world.told() == NodeModels(6)
        go_on.set()
        told = await world.until(lambda told: told.newest is not None)
        assert [one.generation for one in told.placed] == [6]


async def test_going_back_to_the_bundles_own_needs_nothing(world: World) -> None:
    async with world.running():
        world.away = True
        world.choose(9, None)
        told = await world.until(lambda told: told.newest is not None)
        assert told.newest is not None
        assert (told.newest.generation, told.newest.models) == (9, {})


async def test_choices_that_are_none_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="publication"):
        world.placer.set_models(AppValues({"app": (1, {"m": 3})}))
