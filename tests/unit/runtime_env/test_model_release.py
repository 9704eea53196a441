"""A model published by itself: signed, numbered, found again in every kind of store, and refused where anything was changed."""

from __future__ import annotations

import http.client
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rayline.app_spec import ModelSource
from rayline.errors import BlobCorrupt, BuildError, BundleRefused, NotInStore, SignatureWrong, StoreError, Unsigned
from runtime_env.build.cache import BuildCache
from runtime_env.build.model_layer import build_model
from runtime_env.bundle import sha256 as digest_of
from runtime_env.fetch import fetch_blobs
from runtime_env.model_release import MODEL_VERSION, ModelRelease, SignedModel, sign_model
from runtime_env.signing import SigningKey, Trust
from runtime_env.store import FolderStore, WritableStore, open_writable_store, publish_model, resolve_model
from runtime_env.store.http import HttpStore
from runtime_env.store.protocol import ModelEntry
from runtime_env.store.sweeping import sweep, sweep_models
from runtime_env.transfer import Transfer
from runtime_env.unpack import unpack_layers


class Workshop:
    """A folder with weights, a build cache, and keys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = BuildCache(path=root / "cache")
        self.key = SigningKey.generate(root / "key")
        (root / "trust").write_text(f"ed25519 {self.key.public} me\n")
        self.trust = Trust.read(root / "trust")

    def release(self, text: str, name: str = "detector") -> tuple[ModelRelease, Path]:
        (self.root / "weights.bin").write_text(text)
        built = build_model(self.cache, "app", self.root, ModelSource(name, "weights.bin"))
        return built.release, built.blob

    def publish(self, store: WritableStore, text: str, name: str = "detector") -> SignedModel:
        return publish_model(store, *self.release(text, name), key=self.key).signed


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


STORES: dict[str, Callable[[Path], WritableStore]] = {
    "folder": lambda root: FolderStore(path=root / "store"),
    "remote": lambda root: open_writable_store(f"memory://{root.name}/store"),
}


@pytest.mark.parametrize("kind", STORES)
def test_publications_are_numbered_and_found_again(kind: str, workshop: Workshop, tmp_path: Path) -> None:
    store = STORES[kind](tmp_path)
    first, second = workshop.publish(store, "one"), workshop.publish(store, "two")
    assert (first.counter, second.counter) == (1, 2)
    assert workshop.publish(store, "two") == second
    assert workshop.publish(store, "one").counter == 3
    entries = store.model_entries()
    assert [entry.counter for entry in entries] == [1, 2, 3]
    assert store.get_model(resolve_model(entries, "app", "detector", 1, store.url)) == first
    assert resolve_model(entries, "app", "detector", None, store.url).counter == 3
    assert store.entries() == []
    for app, name, counter in (("app", "detector", 9), ("app", "other", None), ("other", "detector", None)):
        with pytest.raises(NotInStore):
            resolve_model(entries, app, name, counter, store.url)
    store.delete_model(entries[0])
    assert [entry.counter for entry in store.model_entries()] == [2, 3]


def test_who_waits_is_told_of_a_models_bytes_from_its_source_to_the_store(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(random.Random(1).randbytes(3 * 2**20))
    told: list[Transfer] = []
    built = build_model(workshop.cache, "app", tmp_path, ModelSource("detector", "weights.bin"), progress=told.append)
    publish_model(FolderStore(path=tmp_path / "store"), built.release, built.blob, key=workshop.key, progress=told.append)
    whats = list(dict.fromkeys(one.what for one in told))
    assert whats == [f"{verb} detector" for verb in ("reading", "packing", "hashing", "storing")]
    for what in whats:
        first, *between, last = [one for one in told if one.what == what]
        assert (first.done_bytes, last.done_bytes) == (0, last.total_bytes)
        assert between, "on the way, not only at the end"


def test_the_index_for_readers_over_http_names_models_and_bundles(workshop: Workshop, tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    signed = workshop.publish(store, "one")

    class Served(HttpStore):
        def _read(self, path: str) -> bytes:
            return (tmp_path / "store" / path).read_bytes()

    served = Served(url="http://nowhere")
    assert served.model_entries() == [ModelEntry.of(signed)]
    assert served.entries() == []
    assert served.get_model(ModelEntry.of(signed)) == signed


def test_a_published_folder_or_file_is_unpacked_where_its_path_says(workshop: Workshop, tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "deep" / "a.bin").write_text("deep")
    folder = build_model(workshop.cache, "app", tmp_path, ModelSource("tables", "parts"))
    signed = workshop.publish(store, "one")
    publish_model(store, folder.release, folder.blob, key=workshop.key)
    for release, inside, text in ((signed.release, "", "one"), (folder.release, "deep/a.bin", "deep")):
        blobs = fetch_blobs(store, [release.layer], tmp_path / "blobs")
        unpack_layers([release.layer], blobs, tmp_path / "node")
        tree = tmp_path / "node" / "layers" / release.layer.digest.removeprefix("sha256:") / "tree"
        assert (tree / release.model.path / inside).read_text() == text


def test_only_what_a_trusted_key_signed_passes(workshop: Workshop, tmp_path: Path) -> None:
    release, _ = workshop.release("one")
    workshop.trust.check(sign_model(release, 1, workshop.key))
    with pytest.raises(Unsigned):
        workshop.trust.check(sign_model(release, 1, None))
    stranger = SigningKey.generate(tmp_path / "stranger")
    with pytest.raises(SignatureWrong, match="nobody here trusts"):
        workshop.trust.check(sign_model(release, 1, stranger))
    other, _ = workshop.release("two")
    for forged in (
        SignedModel(other, 1, workshop.key.signatures(SignedModel(release, 1, {}))),
        SignedModel(release, 2, workshop.key.signatures(SignedModel(release, 1, {}))),
    ):
        with pytest.raises(SignatureWrong, match="does not fit"):
            workshop.trust.check(forged)


def test_a_manifest_that_was_tampered_with_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    signed = workshop.publish(store, "one")
    assert SignedModel.from_bytes(signed.to_bytes()) == signed
    entry = ModelEntry.of(signed)
    path = tmp_path / "store" / entry.path
    path.write_bytes(workshop.publish(FolderStore(path=tmp_path / "other"), "two").to_bytes())
    with pytest.raises(StoreError, match="another model than its name says"):
        store.get_model(entry)
    for where, name, value in (
        (("model", "model"), "path", "../../etc/passwd"),
        (("model", "model"), "path", "models/detector/../../x"),
        (("model", "model"), "path", "/etc/passwd"),
        (("model", "layer"), "kind", "app"),
        (("model", "layer"), "size_bytes", -1),
        (("model",), "v", MODEL_VERSION + 1),
        ((), "counter", True),
        ((), "signatures", []),
    ):
        data = part = json.loads(signed.to_bytes())
        for step in where:
            part = part[step]
        part[name] = value
        with pytest.raises(BundleRefused):
            SignedModel.from_bytes(json.dumps(data).encode())
    for raw in (b"", b"[]", b"[" * 10_000, b"x" * 2**17):
        with pytest.raises(BundleRefused):
            SignedModel.from_bytes(raw)


def test_sources_that_are_not_there_or_other_than_declared_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("one")
    with pytest.raises(BuildError, match="there is no"):
        build_model(workshop.cache, "app", tmp_path, ModelSource("detector", "gone.bin"))
    with pytest.raises(BuildError, match="--digest"):
        build_model(workshop.cache, "app", tmp_path, ModelSource("detector", "s3://models/detector.bin"))
    with pytest.raises(BlobCorrupt):
        build_model(workshop.cache, "app", tmp_path, ModelSource("detector", "weights.bin", "sha256:" + "0" * 64))


def test_the_query_of_an_address_enters_no_bundle(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"weights"))
    source = ModelSource("detector", "https://host/models/net.onnx?X-Amz-Signature=a/secret#part", digest_of(b"weights"))
    built = build_model(workshop.cache, "app", tmp_path, source)
    assert built.release.model.path == "models/detector/net.onnx"
    assert b"secret" not in sign_model(built.release, 1, workshop.key).to_bytes()
    unpack_layers([built.release.layer], {built.release.layer.digest: built.blob}, tmp_path / "node")
    (file,) = (tmp_path / "node" / "layers").rglob("net.onnx*")
    assert (file.name, file.read_bytes()) == ("net.onnx", b"weights")


def test_an_address_that_breaks_off_is_told_whatever_its_client_raises(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Broken())
    source = ModelSource("detector", "https://host/net.onnx", digest_of(b"weights"))
    with pytest.raises(BuildError, match=r"model detector: .* broke off: IncompleteRead"):
        build_model(workshop.cache, "app", tmp_path, source)
    assert not list(workshop.cache.path.glob("tmp/*")), "nothing half made stays"


def test_sweeping_bundles_keeps_every_published_model_and_sweeping_models_what_is_in_use(
    workshop: Workshop, tmp_path: Path
) -> None:
    store = FolderStore(path=tmp_path / "store")
    published = [workshop.publish(store, f"text {number}") for number in range(5)]
    assert sweep(store, keep=1).blobs == ()
    in_use = [ModelEntry.of(published[1])]
    assert [entry.counter for entry in sweep_models(store, "app", keep=2, in_use=in_use, dry_run=True)] == [1, 3]
    assert len(store.model_entries()) == 5
    sweep_models(store, "app", keep=2, in_use=in_use)
    assert [entry.counter for entry in store.model_entries()] == [2, 4, 5]
    assert len(sweep(store, keep=1).blobs) == 2
    assert all(store.has_blob(published[index].release.layer.digest) for index in (1, 3, 4))
