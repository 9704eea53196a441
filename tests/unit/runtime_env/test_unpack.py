"""Activation is whole or not at all: broken blobs, full disks and hostile layers leave the old version as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayline.errors import ArchiveBomb, BlobCorrupt, BlobTruncated, DiskFull, EnvError, LinkEscape, NotInStore, PathEscape
from runtime_env.bundle import Bundle, Layer, hex_of
from runtime_env.layer_reader import Limits
from runtime_env.unpack import discard, unpack
from tests.support.layers import archive, bundle_of, layer_of, member, packed_layer, symlink


def tree_of(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def old(tmp_path: Path) -> tuple[Bundle, dict[str, Path], Path]:
    """Version 1 of an app, unpacked; its blobs, and the folder where environments are."""
    layer, blob = packed_layer(tree_of(tmp_path / "v1", app__feature="one", lib__shared="shared"), tmp_path / "blobs")
    bundle = bundle_of(layer)
    target = tmp_path / "node"
    unpack(bundle, {layer.digest: blob}, target)
    return bundle, {layer.digest: blob}, target


def snapshot(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(error: type[EnvError], old: tuple[Bundle, dict[str, Path], Path], bundle: Bundle, blobs: dict[str, Path]) -> None:
    """`bundle` is refused with `error`; the old environment is untouched, and nothing half made is left."""
    target = old[2]
    before = snapshot(target / "envs")
    with pytest.raises(error):
        unpack(bundle, blobs, target)
    assert snapshot(target / "envs") == before
    assert not list((target / "tmp").iterdir())
    assert unpack(old[0], {}, target).joinpath("app/feature").read_text() == "one"


def damaged(blob: Path, how: str) -> Path:
    data = bytearray(blob.read_bytes())
    if how == "truncated":
        data = data[:-1]
    elif how == "longer":
        data += b"\0"
    else:
        data[len(data) // 2] ^= 1
    path = blob.with_name(f"{blob.name}.{how}")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("how", "error"), [("truncated", BlobTruncated), ("longer", BlobTruncated), ("flipped", BlobCorrupt)])
def test_a_damaged_blob_is_refused_before_a_byte_is_unpacked(
    tmp_path: Path, old: tuple[Bundle, dict[str, Path], Path], how: str, error: type[EnvError]
) -> None:
    layer, blob = packed_layer(tree_of(tmp_path / "v2", app__feature="two"), tmp_path / "blobs")
    refused(error, old, bundle_of(layer, version="v2"), {layer.digest: damaged(blob, how)})
    assert not (old[2] / "layers" / hex_of(layer.digest)).exists()


def test_a_blob_that_is_not_here_is_named(old: tuple[Bundle, dict[str, Path], Path], tmp_path: Path) -> None:
    layer, _ = packed_layer(tree_of(tmp_path / "v2", app__feature="two"), tmp_path / "blobs")
    refused(NotInStore, old, bundle_of(layer, version="v2"), {})


def test_a_hostile_layer_leaves_the_old_version(tmp_path: Path, old: tuple[Bundle, dict[str, Path], Path]) -> None:
    layer, blob = layer_of(archive([member("app/feature", b"two"), member("../../evil", b"x")]), tmp_path / "blobs")
    refused(PathEscape, old, bundle_of(layer, version="v2"), {layer.digest: blob})
    assert not list(tmp_path.rglob("evil"))


def test_layers_that_are_harmless_alone_cannot_climb_out_together(
    tmp_path: Path, old: tuple[Bundle, dict[str, Path], Path]
) -> None:
    first, blob1 = layer_of(archive([member("d/x", b""), symlink("d/up", "..")]), tmp_path / "blobs", name="first")
    second, blob2 = layer_of(archive([symlink("out", "d/up/..")]), tmp_path / "blobs", name="second")
    refused(LinkEscape, old, bundle_of(first, second), {first.digest: blob1, second.digest: blob2})
    third, blob3 = layer_of(archive([member("d/up/evil", b"x")]), tmp_path / "blobs", name="third")
    refused(PathEscape, old, bundle_of(first, third), {first.digest: blob1, third.digest: blob3})


@pytest.mark.parametrize("name", [".boot", "bundle.json"])
def test_a_layer_cannot_have_raylines_own_files_written_into_a_shared_layer(
    tmp_path: Path, old: tuple[Bundle, dict[str, Path], Path], name: str
) -> None:
    layer, blob = layer_of(archive([symlink(name, "lib/shared"), member("lib/shared", b"x")]), tmp_path / "blobs")
    refused(PathEscape, old, bundle_of(layer, version="v2"), {layer.digest: blob})


def test_a_bundle_larger_than_allowed_is_refused_by_what_it_declares(
    tmp_path: Path, old: tuple[Bundle, dict[str, Path], Path]
) -> None:
    layer, blob = packed_layer(tree_of(tmp_path / "v2", app__feature="two"), tmp_path / "blobs")
    with pytest.raises(ArchiveBomb):
        unpack(bundle_of(layer, version="v2"), {layer.digest: blob}, old[2], limits=Limits(max_bytes=100))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_in_advance_and_leaves_the_old_version(tmp_path: Path, tiny_disk: Path) -> None:
    layer, blob = packed_layer(tree_of(tmp_path / "v1", app__feature="one"), tmp_path / "blobs")
    first = bundle_of(layer)
    unpack(first, {layer.digest: blob}, tiny_disk)
    big = tree_of(tmp_path / "v2", app__feature="two")
    (big / "data").write_bytes(os.urandom(20 * 2**20))
    layer2, blob2 = packed_layer(big, tmp_path / "blobs")
    (tiny_disk / "filler").write_bytes(b"\0" * 5 * 2**20)
    refused(DiskFull, (first, {}, tiny_disk), bundle_of(layer2, version="v2"), {layer2.digest: blob2})


def test_a_disk_that_fills_up_on_the_way_leaves_the_old_version(
    tmp_path: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, blob = packed_layer(tree_of(tmp_path / "v1", app__feature="one"), tmp_path / "blobs")
    first = bundle_of(layer)
    unpack(first, {layer.digest: blob}, tiny_disk)
    big = tree_of(tmp_path / "v2", app__feature="two")
    (big / "data").write_bytes(os.urandom(20 * 2**20))
    layer2, blob2 = packed_layer(big, tmp_path / "blobs")
    roomy = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("runtime_env.unpack.shutil.disk_usage", lambda _: roomy)
    (tiny_disk / "filler").write_bytes(b"\0" * 10 * 2**20)
    refused(DiskFull, (first, {}, tiny_disk), bundle_of(layer2, version="v2"), {layer2.digest: blob2})


def test_there_and_back_leaves_nothing_of_the_other(tmp_path: Path) -> None:
    shared, blob0 = packed_layer(tree_of(tmp_path / "shared", lib__common="common"), tmp_path / "blobs", name="shared")
    a, blob1 = packed_layer(tree_of(tmp_path / "a", app__feature="a", lib__only_a="a"), tmp_path / "blobs", name="a")
    b, blob2 = packed_layer(tree_of(tmp_path / "b", app__feature="b", lib__only_b="b"), tmp_path / "blobs", name="b")
    blobs = {shared.digest: blob0, a.digest: blob1, b.digest: blob2}
    target = tmp_path / "node"
    bundle_a, bundle_b = bundle_of(shared, a), bundle_of(shared, b, app="other")
    root_a = unpack(bundle_a, blobs, target)
    before = snapshot(root_a)
    root_b = unpack(bundle_b, blobs, target)
    assert sorted(path.name for path in (root_b / "lib").iterdir()) == ["common", "only_b"]
    assert (root_a / "lib/common").stat().st_ino == (root_b / "lib/common").stat().st_ino, "shared layers are on the disk once"
    again = unpack(bundle_a, {}, target)
    assert (again, snapshot(again)) == (root_a, before)


def test_models_of_a_bundle_are_closed_and_go_with_it(tmp_path: Path) -> None:
    layer, blob = packed_layer(tree_of(tmp_path / "v1", models__net__deep__weights="w", app__feature="one"), tmp_path / "blobs")
    bundle = bundle_of(layer)
    root = unpack(bundle, {layer.digest: blob}, tmp_path / "node")
    modes = {str(path.relative_to(root)): path.stat().st_mode & 0o777 for path in (root / "models", *root.rglob("models/**/*"))}
    assert modes == {"models": 0o555, "models/net": 0o555, "models/net/deep": 0o555, "models/net/deep/weights": 0o444}
    assert (root / "app").stat().st_mode & 0o200
    discard(bundle, tmp_path / "node")
    assert not root.exists()
    assert not list((tmp_path / "node" / "tmp").iterdir())


def test_a_second_bundle_needs_only_the_blobs_of_its_own_layers(tmp_path: Path) -> None:
    shared, blob0 = packed_layer(tree_of(tmp_path / "shared", lib__common="common"), tmp_path / "blobs", name="shared")
    a, blob1 = packed_layer(tree_of(tmp_path / "a", app__feature="a"), tmp_path / "blobs", name="a")
    target = tmp_path / "node"
    unpack(bundle_of(shared), {shared.digest: blob0}, target)
    root = unpack(bundle_of(shared, a), {a.digest: blob1}, target)
    assert (root / "lib/common").read_text() == "common"


def test_where_two_layers_bring_one_path_the_later_wins(tmp_path: Path) -> None:
    layers: list[Layer] = []
    blobs = {}
    for name in ("first", "second"):
        layer, blob = packed_layer(tree_of(tmp_path / name, lib__file=name), tmp_path / "blobs", name=name)
        layers.append(layer)
        blobs[layer.digest] = blob
    assert (unpack(bundle_of(*layers), blobs, tmp_path / "node") / "lib/file").read_text() == "second"


def test_what_was_unpacked_before_the_machine_restarted_is_not_believed(
    old: tuple[Bundle, dict[str, Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, blobs, target = old
    root = target / "envs" / hex_of(bundle.digest)
    (root / "app/feature").unlink()
    (root / "app/feature").write_text("")  # as a power cut leaves a file whose bytes were not on the disk yet
    monkeypatch.setattr("runtime_env.unpack.boot_id", lambda: "the next boot")
    assert (unpack(bundle, blobs, target) / "app/feature").read_text() == "one"


def test_what_a_killed_unpacking_left_is_removed_by_the_next(old: tuple[Bundle, dict[str, Path], Path], tmp_path: Path) -> None:
    bundle, blobs, target = old
    (target / "tmp" / "unpack-killed").mkdir()
    unpack(bundle, blobs, target)
    assert not list((target / "tmp").iterdir())


def test_an_environment_that_is_discarded_takes_nothing_from_the_others(tmp_path: Path) -> None:
    shared, blob0 = packed_layer(tree_of(tmp_path / "shared", lib__common="common"), tmp_path / "blobs", name="shared")
    a, blob1 = packed_layer(tree_of(tmp_path / "a", app__feature="a"), tmp_path / "blobs", name="a")
    blobs = {shared.digest: blob0, a.digest: blob1}
    target = tmp_path / "node"
    kept = unpack(bundle_of(shared, app="other"), blobs, target)
    gone = unpack(bundle_of(shared, a), blobs, target)
    discard(bundle_of(shared, a), target, layers=[a.digest])
    assert not gone.exists()
    assert (kept / "lib/common").read_text() == "common"
    assert [path.name for path in (target / "layers").iterdir()] == [hex_of(shared.digest)]
    discard(bundle_of(shared, a), target)
