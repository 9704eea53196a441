"""What a node keeps: leased things stay whatever the quota says, the rest goes oldest first, layers last."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rayline.errors import ConfigError
from runtime_env.bundle import Bundle, Layer
from runtime_env.node.folder import Kept, NodeFolder, choose_discards
from tests.support.layers import bundle_of, packed_layer


def layer_with(folder: Path, name: str, text: str) -> tuple[Layer, Path]:
    tree = folder / "trees" / name
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / name).write_text(text)
    return packed_layer(tree, folder / "given", name=name)


def placed(node: NodeFolder, *layers: tuple[Layer, Path], version: str, age: int) -> Bundle:
    bundle = bundle_of(*(layer for layer, _ in layers), version=version)
    with node.lease(bundle.digest):
        node.place(bundle, {layer.digest: path for layer, path in layers})
    os.utime(node.path / "leases" / bundle.digest.removeprefix("sha256:"), ns=(0, age))
    return bundle


def test_least_recently_used_goes_first_and_leased_never() -> None:
    old = Kept("sha256:old", 1, {"a": 10, "shared": 5}, leased=False)
    older_but_leased = Kept("sha256:leased", 0, {"b": 10}, leased=True)
    new = Kept("sha256:new", 2, {"c": 10, "shared": 5}, leased=False)
    assert choose_discards([new, old, older_but_leased], quota_bytes=35) == []
    assert choose_discards([new, old, older_but_leased], quota_bytes=34) == [old]
    assert choose_discards([new, old, older_but_leased], quota_bytes=0) == [old, new]


def test_a_layer_that_two_share_is_counted_once() -> None:
    both = [Kept(f"sha256:{n}", n, {"shared": 10}, leased=False) for n in (1, 2)]
    assert choose_discards(both, quota_bytes=10) == []


def test_collection_keeps_what_is_leased_and_what_it_is_made_of(tmp_path: Path) -> None:
    node = NodeFolder(path=tmp_path / "node", quota_bytes=0)
    shared, one, two = (layer_with(tmp_path, name, name) for name in ("shared", "one", "two"))
    a, b = placed(node, shared, one, version="a", age=1), placed(node, shared, two, version="b", age=2)
    with node.lease(a.digest), node.changing():
        assert set(node.collect()) == {b.digest, two[0].digest}
    assert (node.environment(a.digest) / "lib" / "shared").read_text() == "shared"
    assert not node.environment(b.digest).exists()
    with node.changing():
        assert set(node.collect()) == {a.digest, shared[0].digest, one[0].digest}
    assert not list((node.unpacked / "layers").iterdir())


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node").chmod(0o777)
    with pytest.raises(ConfigError, match="RAYLINE_NODE_DIR"):
        NodeFolder(path=tmp_path / "node", quota_bytes=0)


def test_what_fits_stays_although_nobody_uses_it(tmp_path: Path) -> None:
    node = NodeFolder(path=tmp_path / "node", quota_bytes=2**20)
    a = placed(node, layer_with(tmp_path, "one", "1"), version="a", age=1)
    with node.changing():
        assert node.collect() == []
    assert node.environment(a.digest).is_dir()


def test_a_layer_that_is_used_by_itself_stays_while_leased(tmp_path: Path) -> None:
    node = NodeFolder(path=tmp_path / "node", quota_bytes=0)
    layer, blob = layer_with(tmp_path, "model", "weights")
    with node.lease(layer.digest):
        (tree,) = node.place_layers([layer], {layer.digest: blob})
        assert node.collect() == []
        assert (tree / "lib" / "model").read_text() == "weights"
    assert node.collect() == [layer.digest]
    assert not tree.exists()


def test_a_lease_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    node = NodeFolder(path=tmp_path / "node", quota_bytes=0)
    a = placed(node, layer_with(tmp_path, "one", "1"), version="a", age=1)
    program = (
        "import sys; from pathlib import Path; from runtime_env.node.folder import NodeFolder;"
        "held = NodeFolder(path=Path(sys.argv[1]), quota_bytes=0).lease(sys.argv[2]); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(node.path), a.digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert node.is_leased(a.digest)
        assert node.collect() == []
        holder.kill()
        holder.wait()
    assert not node.is_leased(a.digest)
    assert a.digest in node.collect()
