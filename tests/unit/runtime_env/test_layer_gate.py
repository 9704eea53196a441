"""The gate for archives: what could leave the folder, or be more than it says, is refused; nothing is written outside."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rayline.errors import (
    ArchiveBomb,
    ArchiveUnsafe,
    BlobCorrupt,
    BlobTruncated,
    BundleRefused,
    HardLinkInside,
    LinkEscape,
    PathEscape,
    SpecialFile,
)
from runtime_env.layer_reader import Entries, Limits, extract
from runtime_env.layer_writer import pack
from tests.support.layers import archive, member, symlink


def unpack_content(content: bytes, root: Path, *, declared_bytes: int | None = None, limits: Limits | None = None) -> Entries:
    blob = zstandard.ZstdCompressor().compress(content)
    root.mkdir()
    size = len(content) if declared_bytes is None else declared_bytes
    return extract(io.BytesIO(blob), root, size_bytes=len(blob), content_bytes=size, files=1000, limits=limits)


CORPUS = {
    "parent": (PathEscape, [member("../evil", b"x")]),
    "parent inside": (PathEscape, [member("a/../../evil", b"x")]),
    "absolute": (PathEscape, [member("/tmp/evil", b"x")]),
    "dot": (PathEscape, [member("./a", b"x")]),
    "empty part": (PathEscape, [member("a//b", b"x")]),
    "too deep": (PathEscape, [member("/".join(["d"] * 2000), b"x")]),
    "too long": (PathEscape, [member("n" * 300, b"x")]),
    "twice": (PathEscape, [member("a", b"x"), member("a", b"y")]),
    "below a file": (PathEscape, [member("a", b"x"), member("a/b", b"y")]),
    "file over a folder": (PathEscape, [member("a/b", b"x"), member("a", b"y")]),
    "link out": (LinkEscape, [symlink("a", "../outside")]),
    "absolute link": (LinkEscape, [symlink("a", "/etc/passwd")]),
    "file through a link": (LinkEscape, [symlink("a", "b"), member("a/evil", b"x")]),
    "file through a link to come": (LinkEscape, [member("a/evil", b"x"), symlink("a", "b")]),
    "link chain": (LinkEscape, [member("d/", kind=tarfile.DIRTYPE), symlink("d/up", ".."), symlink("out", "d/up/..")]),
    "longer link chain": (
        LinkEscape,
        [member("a/b/", kind=tarfile.DIRTYPE), symlink("a/b/c", ".."), symlink("d", "a/b/c/.."), symlink("e", "d/../x")],
    ),
    "link circle": (LinkEscape, [symlink("a", "b"), symlink("b", "a")]),
    "hard link": (HardLinkInside, [member("a", b"x"), member("b", kind=tarfile.LNKTYPE, link="a")]),
    "hard link out": (HardLinkInside, [member("b", kind=tarfile.LNKTYPE, link="/etc/passwd")]),
    "device": (SpecialFile, [member("null", kind=tarfile.CHRTYPE)]),
    "block device": (SpecialFile, [member("disk", kind=tarfile.BLKTYPE)]),
    "pipe": (SpecialFile, [member("pipe", kind=tarfile.FIFOTYPE)]),
    "setuid": (SpecialFile, [member("su", b"x", mode=0o4755)]),
    "setgid": (SpecialFile, [member("sg", b"x", mode=0o2755)]),
    "sparse": (ArchiveUnsafe, [member("s", kind=tarfile.GNUTYPE_SPARSE)]),
}


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_archive_is_refused_by_its_own_error_and_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    error, members = CORPUS[name]
    around = tmp_path / "around"
    around.mkdir()
    before = sorted(tmp_path.iterdir())
    if name == "file through a link to come":
        error = PathEscape
    with pytest.raises(error):
        unpack_content(archive(members), around / "root")
    assert sorted(tmp_path.iterdir()) == before
    assert [path.name for path in around.iterdir()] == ["root"]
    assert not Path("/tmp/evil").exists()


def test_more_bytes_than_declared_are_a_bomb(tmp_path: Path) -> None:
    content = archive([member("zeros", bytes(3 * 2**20))])
    blob = zstandard.ZstdCompressor().compress(content)
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ArchiveBomb, match="declared"):
        extract(io.BytesIO(blob), root, size_bytes=len(blob), content_bytes=2**20, files=10)
    assert sum(path.stat().st_size for path in root.iterdir()) <= 2**20


def test_a_ratio_that_no_software_has_is_a_bomb(tmp_path: Path) -> None:
    with pytest.raises(ArchiveBomb, match="far more than its size accounts for"):
        unpack_content(archive([member("zeros", bytes(80 * 2**20))]), tmp_path / "root")


def test_more_members_than_declared_are_a_bomb(tmp_path: Path) -> None:
    with pytest.raises(ArchiveBomb, match="members"):
        unpack_content(archive([member(f"f{number}") for number in range(20)]), tmp_path / "root", limits=Limits(max_files=10))


def test_an_archive_that_ends_early_is_truncated(tmp_path: Path) -> None:
    with pytest.raises(BlobTruncated):
        unpack_content(archive([member("a", b"x" * 5000)])[:3000], tmp_path / "root", declared_bytes=10_000)


@pytest.mark.parametrize("size", [0, 1, 700])
def test_what_is_no_archive_is_corrupt(tmp_path: Path, size: int) -> None:
    with pytest.raises((BlobCorrupt, BlobTruncated)):
        unpack_content(b"x" * size, tmp_path / "root", declared_bytes=10_000)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=2048), where=st.integers(0, 2000), flip=st.integers(1, 255))
def test_no_bytes_make_the_gate_fail_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, where: int, flip: int
) -> None:
    honest = bytearray(archive([member("folder/file", b"content"), symlink("folder/link", "file")]))
    honest[where % len(honest)] ^= flip
    for content in (data, bytes(honest)):
        root = tmp_path_factory.mktemp("fuzz") / "root"
        try:
            unpack_content(content, root)
        except BundleRefused:
            continue
        assert all(root in path.parents for path in root.rglob("*"))


def test_what_goes_in_comes_out_read_only_with_links_and_long_names(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    long = "/".join(["part" * 10] * 5) + "/ünïcode.py"
    (tree / long).parent.mkdir(parents=True)
    (tree / long).write_text("text")
    (tree / "program").write_bytes(b"\0" * 3_000_000)
    (tree / "program").chmod(0o755)
    (tree / "empty").mkdir()
    (tree / "link").symlink_to("program")
    blob = io.BytesIO()
    packed = pack(tree, blob)
    blob.seek(0)
    root = tmp_path / "root"
    root.mkdir()
    extract(blob, root, size_bytes=packed.size_bytes, content_bytes=packed.content_bytes, files=packed.files)
    assert (root / long).read_text() == "text"
    assert (root / "program").read_bytes() == (tree / "program").read_bytes()
    assert (root / "program").stat().st_mode & 0o777 == 0o555
    assert (root / long).stat().st_mode & 0o777 == 0o444
    assert (root / "link").readlink() == Path("program")
    assert (root / "empty").is_dir()


def test_equal_trees_give_equal_bytes_whatever_their_times_and_owners(tmp_path: Path) -> None:
    blobs = []
    for number, names in enumerate((["b", "a"], ["a", "b"])):
        tree = tmp_path / str(number)
        tree.mkdir()
        for name in names:
            (tree / name).write_text(name)
            os.utime(tree / name, (number, number))
        (tree / "a").chmod(0o600 if number else 0o664)
        out = io.BytesIO()
        pack(tree, out)
        blobs.append(out.getvalue())
    assert blobs[0] == blobs[1]


def test_a_socket_or_a_link_out_of_the_tree_is_not_packed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe")
    with pytest.raises(SpecialFile):
        pack(tree, io.BytesIO())
    (tree / "pipe").unlink()
    (tree / "out").symlink_to("/etc")
    with pytest.raises(LinkEscape):
        pack(tree, io.BytesIO())
