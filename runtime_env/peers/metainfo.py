"""What peers must know of a blob before they have it: a BitTorrent v2 description (BEP 52), made from the bytes alone.

Computed here and not by libtorrent, whose `set_piece_hashes` holds Python's interpreter lock for the whole file: this one gives
it up between blocks, needs no libtorrent where bundles are built, and gives every builder and every node the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack

from rayline.errors import BlobCorrupt
from runtime_env.bundle import hex_of
from runtime_env.transfer import OnBytes, unheard

METAINFO_VERSION: Final = 1
BLOCK_BYTES: Final = 16 * 2**10
MAX_PIECE_BYTES: Final = 4 * 2**20
MAX_METAINFO_BYTES: Final = 16 * 2**20
# A super seeding origin hands each piece to one peer: with fewer pieces than peers it would send some of them twice.
_WANTED_PIECES: Final = 64
_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class BlobMetainfo:
    """A blob's pieces. `layer` holds the hash of each piece, one after another: empty where one piece holds the blob.

    Not secret and not trusted: what peers send is checked against it piece by piece, and the whole against `digest` at the end.
    """

    digest: str
    size_bytes: int
    root: bytes
    layer: bytes

    @property
    def piece_bytes(self) -> int:
        return piece_bytes(self.size_bytes)

    @property
    def pieces(self) -> int:
        return -(-self.size_bytes // self.piece_bytes)

    def span(self, piece: int) -> tuple[int, int]:
        """Where a piece starts, and how many bytes it has."""
        start = piece * self.piece_bytes
        return start, min(self.piece_bytes, self.size_bytes - start)

    def fits(self, piece: int, data: bytes) -> bool:
        """Whether `data` is that piece."""
        if len(data) != self.span(piece)[1]:
            return False
        blocks = _block_hashes(data)
        if not self.layer:
            return _tree_root(blocks, _power_of_two(len(blocks)), _ZERO) == self.root
        wanted = self.layer[piece * _HASH_BYTES : (piece + 1) * _HASH_BYTES]
        return _tree_root(blocks, self.piece_bytes // BLOCK_BYTES, _ZERO) == wanted

    def to_bytes(self) -> bytes:
        packed: bytes = msgpack.packb([METAINFO_VERSION, self.digest, self.size_bytes, self.root, self.layer])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> BlobMetainfo:
        """Read `to_bytes` back; raises BlobCorrupt for anything that does not add up."""
        try:
            version, digest, size_bytes, root, layer = msgpack.unpackb(data, raw=False)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise BlobCorrupt(f"not a description of a blob: {error!r}; publish the bundle again") from error
        if version != METAINFO_VERSION or type(size_bytes) is not int or size_bytes <= 0:
            raise BlobCorrupt(f"a description of version {version!r} with {size_bytes!r} bytes: publish the bundle again")
        if not (isinstance(digest, str) and isinstance(root, bytes) and isinstance(layer, bytes) and len(root) == _HASH_BYTES):
            raise BlobCorrupt("a description of a blob with fields of the wrong kind: publish the bundle again")
        hex_of(digest)
        made = cls(digest, size_bytes, root, layer)
        pieces = [layer[at : at + _HASH_BYTES] for at in range(0, len(layer), _HASH_BYTES)]
        if len(layer) != (made.pieces * _HASH_BYTES if made.pieces > 1 else 0):
            raise BlobCorrupt(f"the description of {digest} has {len(pieces)} pieces instead of {made.pieces}: publish it again")
        if pieces and _tree_root(pieces, _power_of_two(len(pieces)), _padding_piece(made.piece_bytes)) != root:
            raise BlobCorrupt(f"the pieces of {digest} do not add up to its root: publish the bundle again")
        return made

    def info(self, token: bytes) -> dict[bytes, Any]:
        """The torrent's `info`; its SHA-256 is what peers meet under. Without `token` nobody can tell it."""
        name = hex_of(self.digest).encode()
        secret = hmac.new(token, b"rayline peers " + name, hashlib.sha256).digest()
        return {
            b"file tree": {name: {b"": {b"length": self.size_bytes, b"pieces root": self.root}}},
            b"meta version": 2,
            b"name": name,
            b"piece length": self.piece_bytes,
            b"rayline": secret,
        }

    def torrent(self, token: bytes) -> bytes:
        """A torrent file, for libtorrent on this machine only: it holds what keeps strangers away."""
        layers = {self.root: self.layer} if self.layer else {}
        return bencode({b"info": self.info(token), b"piece layers": layers})

    def tag(self, token: bytes) -> str:
        """16 hexadecimal digits that name the swarm to other members; the name by which peers meet cannot be told from it."""
        meeting = hashlib.sha256(bencode(self.info(token))).digest()
        return hashlib.sha256(b"rayline tag " + meeting).hexdigest()[:16]


def piece_bytes(size_bytes: int) -> int:
    """4 MiB from 256 MiB on, less below: a power of two, a function of the size alone."""
    size = BLOCK_BYTES
    while size < MAX_PIECE_BYTES and size * _WANTED_PIECES < size_bytes:
        size *= 2
    return size


def describe(path: Path, on_bytes: OnBytes = unheard) -> BlobMetainfo:
    """Read a blob once, telling how many bytes more were; raises BlobCorrupt for an empty file, OSError."""
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise BlobCorrupt(f"{path} is empty: there is nothing to give to peers")
    with path.open("rb") as file:
        return _describe(file, size_bytes, on_bytes)


def _describe(file: BinaryIO, size_bytes: int, on_bytes: OnBytes) -> BlobMetainfo:
    piece = piece_bytes(size_bytes)
    whole = hashlib.sha256()
    if size_bytes <= piece:
        data = file.read(piece)
        whole.update(data)
        blocks = _block_hashes(data)
        on_bytes(len(data))
        return BlobMetainfo(f"sha256:{whole.hexdigest()}", size_bytes, _tree_root(blocks, _power_of_two(len(blocks)), _ZERO), b"")
    layer: list[bytes] = []
    while data := file.read(piece):
        whole.update(data)
        layer.append(_tree_root(_block_hashes(data), piece // BLOCK_BYTES, _ZERO))
        on_bytes(len(data))
    root = _tree_root(layer, _power_of_two(len(layer)), _padding_piece(piece))
    return BlobMetainfo(f"sha256:{whole.hexdigest()}", size_bytes, root, b"".join(layer))


def bencode(value: Any) -> bytes:
    """BitTorrent's encoding of bytes, whole numbers and dictionaries with sorted keys."""
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, int):
        return b"i%de" % value
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


_ZERO: Final = bytes(_HASH_BYTES)


def _block_hashes(data: bytes) -> list[bytes]:
    view = memoryview(data)
    return [hashlib.sha256(view[at : at + BLOCK_BYTES]).digest() for at in range(0, len(data), BLOCK_BYTES)]


def _tree_root(leaves: list[bytes], width: int, padding: bytes) -> bytes:
    """Root of a Merkle tree whose missing leaves (up to `width`, a power of two) are `padding`."""
    row = leaves
    while width > 1:
        if len(row) % 2:
            row = [*row, padding]
        row = [hashlib.sha256(row[at] + row[at + 1]).digest() for at in range(0, len(row), 2)]
        padding = hashlib.sha256(padding + padding).digest()
        width //= 2
    return row[0]


@lru_cache(maxsize=16)
def _padding_piece(piece: int) -> bytes:
    """The hash of a piece that lies wholly behind the end of the file."""
    return _tree_root([_ZERO], piece // BLOCK_BYTES, _ZERO)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
