"""Every store keeps the same promises: names resolve, blobs come from any offset, what is there is not moved again."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from rayline.errors import BlobCorrupt, BlobTruncated, NotInStore, StoreError
from runtime_env.fetch import fetch_blobs
from runtime_env.peers.metainfo import describe
from runtime_env.signing import SigningKey
from runtime_env.store import FolderStore, WritableStore, open_store, open_writable_store, publish
from runtime_env.store.protocol import blob_path
from runtime_env.store.sweeping import sweep
from runtime_env.transfer import Transfer
from tests.support.layers import bundle_of, packed_layer


class RangeHandler(SimpleHTTPRequestHandler):
    """A file server with ranges, as web servers have them."""

    requests: list[tuple[str, str | None]]

    def send_head(self):  # type: ignore[no-untyped-def]
        wanted = self.headers.get("Range")
        self.requests.append((self.path, wanted))
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", "/manifests/index.json")
            self.end_headers()
            return None
        if self.path.startswith("/broken/"):
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"64\r\nhalf a chunk")
            self.close_connection = True
            return None
        if wanted is None:
            return super().send_head()
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        data = Path(self.translate_path(self.path)).read_bytes()[start:]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    requests: list[tuple[str, str | None]] = []
    handler = type("Handler", (RangeHandler,), {"requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WritableStore:
    return open_writable_store(str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid4()}/store")


def layer_with(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    tree = tmp_path / f"tree-{text}"
    (tree / "app").mkdir(parents=True)
    (tree / "app" / "feature.py").write_text(text)
    return packed_layer(tree, tmp_path / "blobs", name=text)


def test_publishing_moves_each_blob_once_and_counts_upwards(store: WritableStore, tmp_path: Path) -> None:
    key = SigningKey.generate(tmp_path / "key")
    (a, blob_a), (b, blob_b) = layer_with(tmp_path, "a"), layer_with(tmp_path, "b")
    blobs = {a.digest: blob_a, b.digest: blob_b}
    first = publish(store, bundle_of(a), blobs, key=key)
    described_a, described_b = (len(describe(blob).to_bytes()) for blob in (blob_a, blob_b))
    assert first.moved_bytes == described_a + a.size_bytes + len(first.signed.to_bytes())
    second = publish(store, bundle_of(a, b), blobs, key=key)
    assert second.moved_bytes == described_b + b.size_bytes + len(second.signed.to_bytes())
    assert [entry.counter for entry in store.entries()] == [1, 2]
    same = publish(store, bundle_of(a, b), blobs, key=key)
    assert (same.new, same.moved_bytes) == (False, 0)
    back = publish(store, bundle_of(a), {}, key=key)
    assert (back.signed.counter, back.signed.bundle.digest) == (3, first.signed.bundle.digest)


def test_who_waits_is_told_of_every_byte_that_is_hashed_and_stored(store: WritableStore, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "weights").write_bytes(random.Random(1).randbytes(3 * 2**20))
    layer, blob = packed_layer(tree, tmp_path / "blobs", name="weights")
    told: list[Transfer] = []
    publish(store, bundle_of(layer), {layer.digest: blob}, key=None, progress=told.append)
    assert list(dict.fromkeys(one.what for one in told)) == ["hashing weights", "storing weights"]
    for what in ("hashing weights", "storing weights"):
        done = [one.done_bytes for one in told if one.what == what]
        assert (done[0], done[-1], {one.total_bytes for one in told}) == (0, layer.size_bytes, {layer.size_bytes})
        assert done == sorted(done)
        assert len(done) > 2, "on the way, not only at the end"
    told.clear()
    publish(store, bundle_of(layer, version="v2"), {layer.digest: blob}, key=None, progress=told.append)
    assert told == [], "what is there is not moved"


def test_names_lead_to_the_newest_a_counter_or_a_digest(store: WritableStore, tmp_path: Path) -> None:
    (a, blob_a), (b, blob_b) = layer_with(tmp_path, "a"), layer_with(tmp_path, "b")
    for layer, blob in ((a, blob_a), (b, blob_b)):
        publish(store, bundle_of(layer), {layer.digest: blob}, key=None)
    assert store.get_manifest("app").bundle == bundle_of(b)
    assert store.get_manifest("app@1").bundle == bundle_of(a)
    assert store.get_manifest(f"app@{bundle_of(a).digest[:20]}").counter == 1
    for ref, error, match in (
        ("gone", NotInStore, "no bundle of 'gone'"),
        ("app@9", NotInStore, "it has app@1, app@2"),
        ("app@sha256:12", StoreError, "at least"),
    ):
        with pytest.raises(error, match=match):
            store.get_manifest(ref)


def test_a_blob_is_read_from_any_offset(store: WritableStore, tmp_path: Path) -> None:
    layer, blob = layer_with(tmp_path, "a")
    store.put_blob(layer.digest, blob)
    data = blob.read_bytes()
    for offset in (0, 1, len(data) - 1):
        with store.open_blob(layer.digest, offset) as file:
            assert file.read() == data[offset:]
    with pytest.raises(NotInStore):
        store.open_blob("sha256:" + "0" * 64)


def test_publishing_without_a_blob_is_refused_and_nothing_is_announced(store: WritableStore, tmp_path: Path) -> None:
    layer, _ = layer_with(tmp_path, "a")
    with pytest.raises(StoreError, match="build the bundle again"):
        publish(store, bundle_of(layer), {}, key=None)
    assert store.entries() == []


def test_sweeping_keeps_the_newest_and_every_blob_they_name(store: WritableStore, tmp_path: Path) -> None:
    layers = [layer_with(tmp_path, name) for name in "abc"]
    for layer, blob in layers[1:]:
        publish(store, bundle_of(layers[0][0], layer), {layers[0][0].digest: layers[0][1], layer.digest: blob}, key=None)
    dry = sweep(store, keep=1, dry_run=True)
    assert len(store.entries()) == 2
    assert sweep(store, keep=1) == dry
    assert [entry.counter for entry in store.entries()] == [2]
    assert {digest for digest, _ in store.blobs()} == {layers[0][0].digest, layers[2][0].digest}


def test_sweeping_keeps_what_runs_however_old(store: WritableStore, tmp_path: Path) -> None:
    layers = [layer_with(tmp_path, name) for name in "abc"]
    for layer, blob in layers:
        publish(store, bundle_of(layer), {layer.digest: blob}, key=None)
    swept = sweep(store, keep=1, in_use={bundle_of(layers[0][0]).digest})
    assert [entry.counter for entry in swept.manifests] == [2]
    assert store.get_manifest(f"app@{bundle_of(layers[0][0]).digest}").counter == 1
    assert {digest for digest, _ in store.blobs()} == {layers[0][0].digest, layers[2][0].digest}


def test_a_folder_behind_a_web_server_is_a_store(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    layer, blob = layer_with(tmp_path, "a")
    publish(FolderStore(path=folder), bundle_of(layer), {layer.digest: blob}, key=None)
    with served(folder) as (url, requests):
        store = open_store(url)
        assert store.get_manifest("app").bundle == bundle_of(layer)
        assert store.has_blob(layer.digest)
        assert not store.has_blob("sha256:" + "0" * 64)
        part = tmp_path / "node" / f"{layer.digest.removeprefix('sha256:')}.part"
        part.parent.mkdir()
        part.write_bytes(blob.read_bytes()[:5])
        paths = fetch_blobs(store, [layer], tmp_path / "node")
        assert paths[layer.digest].read_bytes() == blob.read_bytes()
        assert requests[-1] == (f"/{blob_path(layer.digest)}", "bytes=5-")
        with pytest.raises(StoreError, match="redirects are not followed"):
            open_store(f"{url}/moved").entries()
    with pytest.raises(StoreError, match="does not answer"):
        open_store(url).entries()
    with pytest.raises(StoreError, match="read over HTTP"):
        open_writable_store(url)


def test_a_transfer_that_breaks_off_is_told_as_such_whatever_the_client_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, blob = layer_with(tmp_path, "a")
    with served(tmp_path) as (url, _):
        store = open_store(f"{url}/broken")
        with pytest.raises(StoreError, match="broke off"):
            store.entries()
        with pytest.raises(StoreError, match="broke off"):
            fetch_blobs(store, [layer], tmp_path / "over-http")
    bucket = open_writable_store(f"memory://{uuid4()}/store")
    bucket.put_blob(layer.digest, blob)

    def read(_file: object, _size: int) -> bytes:
        raise RuntimeError("payload is not completed")  # as clients of buckets do: no OSError

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFile.read", read, raising=False)
    with pytest.raises(StoreError, match="RuntimeError: payload is not completed"):
        fetch_blobs(bucket, [layer], tmp_path / "from-a-bucket")


def test_what_a_store_gives_is_checked_byte_for_byte(tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    layer, blob = layer_with(tmp_path, "a")
    publish(store, bundle_of(layer), {layer.digest: blob}, key=None)
    stored = tmp_path / "store" / blob_path(layer.digest)
    data = bytearray(stored.read_bytes())
    stored.chmod(0o644)
    for damaged, error in (
        (data[:-3], BlobTruncated),
        (data[:-1] + bytes([data[-1] ^ 1]), BlobCorrupt),
        (data + b"x", BlobCorrupt),
    ):
        stored.write_bytes(damaged)
        target = tmp_path / f"node-{error.__name__}-{len(damaged)}"
        with pytest.raises(error):
            fetch_blobs(store, [layer], target)
        assert not (target / layer.digest.removeprefix("sha256:")).exists()


def test_a_manifest_under_another_name_is_tampering(tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    (a, blob_a), (b, blob_b) = layer_with(tmp_path, "a"), layer_with(tmp_path, "b")
    for layer, blob in ((a, blob_a), (b, blob_b)):
        publish(store, bundle_of(layer), {layer.digest: blob}, key=None)
    old, new = (tmp_path / "store" / entry.path for entry in store.entries())
    new.write_bytes(old.read_bytes())
    with pytest.raises(StoreError, match="tampered"):
        store.get_manifest("app")
