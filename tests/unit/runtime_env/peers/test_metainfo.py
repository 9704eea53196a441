"""A blob's description is the same wherever it is made, is libtorrent's own, and hides under which name its holders meet."""

from __future__ import annotations

import hashlib
from pathlib import Path

import libtorrent
import pytest

from rayline.errors import BlobCorrupt
from runtime_env.bundle import hex_of
from runtime_env.peers.metainfo import MAX_PIECE_BYTES, BlobMetainfo, bencode, describe, piece_bytes

SIZES = [1, 100, 2**14, 2**14 + 1, 50_000, 2**20, 2**20 + 1, 3 * 2**20]


def blob(folder: Path, size: int) -> Path:
    path = folder / "blob"
    path.write_bytes(bytes(number * 7 % 251 for number in range(size)))
    return path


@pytest.mark.parametrize("size", SIZES)
def test_the_description_is_what_libtorrent_would_make(tmp_path: Path, size: int) -> None:
    path = blob(tmp_path, size)
    made = describe(path)
    named = path.rename(tmp_path / hex_of(made.digest))
    theirs = libtorrent.create_torrent(libtorrent.list_files(str(named)), made.piece_bytes, libtorrent.create_torrent.v2_only)
    libtorrent.set_piece_hashes(theirs, str(tmp_path))
    torrent = theirs.generate()
    root = torrent[b"info"][b"file tree"][named.name.encode()][b""][b"pieces root"]
    assert (made.root, made.layer) == (root, torrent.get(b"piece layers", {}).get(root, b""))
    loaded = libtorrent.load_torrent_buffer(made.torrent(b"token"))
    assert str(loaded.info_hashes.v2) == hashlib.sha256(bencode(made.info(b"token"))).hexdigest()


@pytest.mark.parametrize("size", SIZES)
def test_it_survives_the_store_and_knows_its_pieces(tmp_path: Path, size: int) -> None:
    path = blob(tmp_path, size)
    made = BlobMetainfo.from_bytes(describe(path).to_bytes())
    assert made == describe(path)
    data = path.read_bytes()
    for piece in range(made.pieces):
        start, length = made.span(piece)
        right = data[start : start + length]
        assert made.fits(piece, right)
        assert not made.fits(piece, bytes([right[0] ^ 1]) + right[1:])
        assert not made.fits(piece, right[:-1])


def test_pieces_are_of_four_mebibytes_where_there_are_enough_of_them() -> None:
    assert piece_bytes(2 * 2**30) == MAX_PIECE_BYTES == piece_bytes(2**28)
    assert 8 * 2**20 // piece_bytes(8 * 2**20) == 64


def test_without_the_token_nobody_knows_where_peers_meet(tmp_path: Path) -> None:
    made = describe(blob(tmp_path, 100))
    assert made.info(b"one") != made.info(b"other")
    assert made.tag(b"one") != made.tag(b"other")
    assert made.tag(b"one") not in hashlib.sha256(bencode(made.info(b"one"))).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda it: BlobMetainfo(it.digest, it.size_bytes + 2**21, it.root, it.layer),
        lambda it: BlobMetainfo(it.digest, it.size_bytes, it.root, it.layer[:-32]),
        lambda it: BlobMetainfo(it.digest, it.size_bytes, it.root, it.layer[32:] + it.layer[:32]),
        lambda it: BlobMetainfo("sha256:no", it.size_bytes, it.root, it.layer),
        lambda it: BlobMetainfo(it.digest, -1, it.root, it.layer),
        lambda it: BlobMetainfo(it.digest, it.size_bytes, b"short", it.layer),
    ],
)
def test_what_does_not_add_up_is_refused(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    made = describe(blob(tmp_path, 2**20))
    with pytest.raises(BlobCorrupt):
        BlobMetainfo.from_bytes(change(made).to_bytes())
    with pytest.raises(BlobCorrupt):
        BlobMetainfo.from_bytes(made.to_bytes()[:-1])


def test_an_empty_file_is_no_blob(tmp_path: Path) -> None:
    with pytest.raises(BlobCorrupt, match="empty"):
        describe(blob(tmp_path, 0))
