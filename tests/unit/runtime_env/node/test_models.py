"""Models on a node: what is wanted comes, in the end, whatever fails on the way; what is older never looks newer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.app_spec import ModelSource
from rayline.errors import BlobCorrupt, BlobTruncated, NotInStore, Unsigned
from rayline.models import ModelChoice, NodeModels, PlacedModel, PlacedModels
from runtime_env.build.cache import BuildCache
from runtime_env.build.model_layer import build_model
from runtime_env.bundle import Layer
from runtime_env.node.folder import NodeFolder
from runtime_env.node.model_fetching import ModelFetcher
from runtime_env.node.models import GENERATIONS_KEPT, MAX_RETRY_SECONDS, ModelPlacements
from runtime_env.node.source import OnBytes, StoreSource
from runtime_env.signing import SigningKey, Trust
from runtime_env.store import FolderStore, publish_model
from runtime_env.store.protocol import blob_path


def choice(number: int) -> ModelChoice:
    return ModelChoice(number, f"sha256:{number:064x}")


def test_what_was_in_place_stays_told_until_the_newer_one_is() -> None:
    models = ModelPlacements()
    assert models.want({"app": (7, {"m": choice(1)})}) == ["app"]
    assert models.told("app") == NodeModels(7)
    task = models.next_due(0.0)
    assert task is not None
    models.succeed(task, {"m": "/one"})
    first = PlacedModels(7, {"m": PlacedModel("/one", 1)})
    assert models.told("app") == NodeModels(7, (first,))
    assert models.next_due(0.0) is None
    models.want({"app": (9, {"m": choice(2)})})
    assert models.told("app") == NodeModels(9, (first,))
    task = models.next_due(0.0)
    assert task is not None
    models.fail(task, "the store is away", 0.0)
    assert models.told("app") == NodeModels(9, (first,), "the store is away")
    assert models.next_due(0.9) is None
    assert models.wake_at() == 1.0
    task = models.next_due(1.0)
    assert task is not None
    models.succeed(task, {"m": "/two"})
    assert models.told("app").problem is None
    assert models.told("app").newest == PlacedModels(9, {"m": PlacedModel("/two", 2)})


def test_what_failed_is_tried_ever_more_rarely_and_news_at_once() -> None:
    models = ModelPlacements()
    models.want({"app": (1, {"m": choice(1)})})
    now, pauses = 0.0, []
    for _ in range(12):
        task = models.next_due(now)
        assert task is not None
        models.fail(task, "no", now)
        at = models.wake_at()
        assert at is not None
        pauses.append(at - now)
        now = at
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == MAX_RETRY_SECONDS
    models.want({"app": (2, {"m": choice(2)})})
    assert models.next_due(0.0) is not None


def test_a_late_word_on_what_is_no_longer_wanted_changes_nothing() -> None:
    models = ModelPlacements()
    models.want({"app": (1, {"m": choice(1)})})
    task = models.next_due(0.0)
    assert task is not None
    models.want({"app": (2, {"m": choice(2)})})
    models.succeed(task, {"m": "/one"})
    models.fail(task, "no", 0.0)
    assert models.told("app") == NodeModels(2)


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 21), st.integers(1, 3))), max_size=20))
def test_generations_only_grow_whatever_the_config_topic_does(records: list[tuple[int, int] | None]) -> None:
    """None: the record is deleted; a generation that falls: the topic was made anew."""
    models = ModelPlacements()
    models.want({"app": (1, {})})
    before = 0
    for record in records:
        models.want({} if record is None else {"app": (record[0], {"m": choice(record[1])})})
        task = models.next_due(0.0)
        if task is not None:
            models.succeed(task, dict.fromkeys(task.choices, "/m"))
        told = models.told("app")
        generations = [one.generation for one in told.placed]
        assert generations == sorted(set(generations))
        assert len(generations) <= GENERATIONS_KEPT
        assert told.wanted >= before
        before = told.wanted
        wanted = {} if record is None else {"m": record[1]}
        assert told.newest is not None
        assert {name: model.publication for name, model in told.newest.models.items()} == wanted


def test_what_actors_are_at_stays_told_however_many_newer_ones_they_could_not_load() -> None:
    models = ModelPlacements()
    for number in range(1, GENERATIONS_KEPT + 4):
        models.want({"app": (number, {"m": choice(number)})})
        task = models.next_due(0.0)
        assert task is not None
        models.succeed(task, {"m": f"/m{number}"}, serving=1)
    told = models.told("app")
    assert told.of(1) == PlacedModels(1, {"m": PlacedModel("/m1", 1)})
    assert len(told.placed) == GENERATIONS_KEPT + 1
    assert choice(1).digest in models.needed()


def test_digests_are_needed_while_their_generation_is_told() -> None:
    models = ModelPlacements()
    for number in range(1, GENERATIONS_KEPT + 3):
        models.want({"app": (number, {"m": choice(number)})})
        task = models.next_due(0.0)
        assert task is not None
        models.succeed(task, {"m": "/m"})
    last = GENERATIONS_KEPT + 2
    assert models.needed() == {choice(number).digest for number in range(last - GENERATIONS_KEPT + 1, last + 1)}


class World:
    """A store with models, and a node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = FolderStore(path=root / "store")
        self.key = SigningKey.generate(root / "key")
        (root / "trust").write_text(f"ed25519 {self.key.public} me\n")
        self.folder = NodeFolder(path=root / "node", quota_bytes=2**30)
        self.read = 0
        self.fetcher = ModelFetcher(folder=self.folder, store=self.store, source=self, trust=Trust.read(root / "trust"))

    def fetch(self, layers: Iterable[Layer], on_bytes: OnBytes) -> dict[str, Path]:
        """A blob source that counts."""
        self.read += 1
        return StoreSource(store=self.store, cache=self.folder.blobs).fetch(layers, on_bytes)

    def publish(self, text: str, *, signed: bool = True) -> ModelChoice:
        (self.root / "weights").mkdir(exist_ok=True)
        (self.root / "weights" / "w.bin").write_text(text)
        built = build_model(BuildCache(path=self.root / "cache"), "app", self.root, ModelSource("m", "weights"))
        published = publish_model(self.store, built.release, built.blob, key=self.key if signed else None).signed
        return ModelChoice(published.counter, published.release.digest)

    def blob(self, wanted: ModelChoice) -> Path:
        entry = next(one for one in self.store.model_entries() if one.digest == wanted.digest)
        return self.root / "store" / blob_path(self.store.get_model(entry).release.layer.digest)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_model_is_read_only_and_stays_at_its_place(world: World) -> None:
    wanted = world.publish("one")
    held = world.fetcher.fetch("app", "m", wanted)
    assert (held.path / "w.bin").read_text() == "one"
    assert held.path.stat().st_mode & 0o777 == 0o555
    assert (held.path / "w.bin").stat().st_mode & 0o777 == 0o444
    other = world.fetcher.fetch("app", "m", world.publish("two"))
    assert other.path != held.path
    assert world.fetcher.fetch("app", "m", wanted).path == held.path
    assert world.read == 2


def test_what_is_here_is_used_although_the_store_is_away(world: World) -> None:
    wanted = world.publish("one")
    path = world.fetcher.fetch("app", "m", wanted).path
    (world.root / "store").rename(world.root / "away")
    assert world.fetcher.fetch("app", "m", wanted).path == path


def test_what_is_leased_is_not_collected_and_what_is_not_makes_room(world: World) -> None:
    small = NodeFolder(path=world.root / "node", quota_bytes=400_000)
    fetcher = ModelFetcher(folder=small, store=world.store, source=world, trust=Trust.read(world.root / "trust"))
    first, second, third = (world.publish(text * 100_000) for text in ("one", "two", "six"))
    one, two = fetcher.fetch("app", "m", first), fetcher.fetch("app", "m", second)
    assert one.path.exists()
    one.lease.release()
    six = fetcher.fetch("app", "m", third)
    assert not one.path.exists()
    assert two.path.exists()
    assert six.path.exists()


def test_one_flipped_byte_a_short_file_and_no_signature_are_refused_and_a_mended_store_is_in_order(world: World) -> None:
    wanted = world.publish("one" * 1000)
    blob = world.blob(wanted)
    good = blob.read_bytes()
    blob.chmod(0o644)
    for bad, kind in ((good[:-1] + bytes([good[-1] ^ 1]), BlobCorrupt), (good[:-1], BlobTruncated)):
        blob.write_bytes(bad)
        with pytest.raises(kind):
            world.fetcher.fetch("app", "m", wanted)
    blob.write_bytes(good)
    assert (world.fetcher.fetch("app", "m", wanted).path / "w.bin").read_text() == "one" * 1000
    with pytest.raises(Unsigned):
        world.fetcher.fetch("app", "m", world.publish("unsigned", signed=False))
    with pytest.raises(NotInStore):
        world.fetcher.fetch("app", "m", ModelChoice(99, wanted.digest.replace(wanted.digest[-1], "0")))


def test_closed_folders_go_also_where_we_are_not_root(tmp_path: Path) -> None:
    program = """
import json, os, sys, tempfile
from pathlib import Path
from runtime_env.unpack import discard_folders
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
with tempfile.TemporaryDirectory(dir="/tmp") as folder:
    root = Path(folder)
    closed = root / "layers" / "x" / "tree" / "models" / "m"
    closed.mkdir(parents=True)
    (closed / "w.bin").write_text("w")
    for folder in (closed, closed.parent, closed.parent.parent):
        folder.chmod(0o555)
    discard_folders(root, root / "layers" / "x")
    print(json.dumps([path.name for path in root.rglob("*") if path.name in ("x", "m", "w.bin")]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
