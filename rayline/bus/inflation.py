"""Compressed record batches, inflated within a bound: a few kilobytes can stand for gigabytes, and whoever may write to a topic
may write such a batch.

What fits is inflated in one go. What does not is looked through piece by piece, for as much of it as is bearable, and never held
whole.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

import cramjam

# The largest job that a manifest allows (64 MiB) and something beside it; seventy times what usual topics take as one message.
MAX_INFLATED_BYTES: Final = 72 * 1024 * 1024
# Looked through for the sake of ids and keys: about a second of a lane's time, much less than its session.
MAX_SCANNED_BYTES: Final = 1024 * 1024 * 1024 + MAX_INFLATED_BYTES
_SLOWLY_SCANNED_BYTES: Final = 512 * 1024 * 1024
_KEPT_BYTES: Final = 4 * 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_LENGTH_BYTES: Final = 4
# With gzip's own header, a window of any size.
_GZIP_BITS: Final = 31


class Codec(IntEnum):
    """As the lowest bits of a batch's attributes name it."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


_INTO: Final[dict[int, Any]] = {Codec.LZ4: cramjam.lz4.decompress_into, Codec.ZSTD: cramjam.zstd.decompress_into}
_STREAMED: Final = {Codec.GZIP: "gzip", Codec.LZ4: "lz4", Codec.ZSTD: "zstd"}


class Inflater(threading.local):
    """Owns the buffer into which batches of the usual size are inflated, one for each thread that uses it.

    Does not own what it returns.
    """

    def __init__(self, max_bytes: int = MAX_INFLATED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept = bytearray(min(_KEPT_BYTES, max_bytes))

    def inflate(self, codec: int, data: memoryview) -> memoryview | bytes | None:
        """All of it, valid until the next call; None where it is more than the bound, or damaged. `codec` as `Codec` has it."""
        try:
            if codec == Codec.GZIP:
                return self._gzip(data)
            return self._snappy(data) if codec == Codec.SNAPPY else self._roomy(_INTO[codec], data)
        except (cramjam.DecompressionError, zlib.error):
            return None

    def _gzip(self, data: memoryview | bytes) -> bytes | None:
        """Several members may follow each other."""
        parts, left = [], self._max_bytes
        while data:
            member = zlib.decompressobj(_GZIP_BITS)
            while not member.eof:
                part = member.decompress(data, _KEPT_BYTES)
                data = member.unconsumed_tail
                parts.append(part)
                left -= len(part)
                if left < 0 or not (part or member.eof):
                    return None
            data = member.unused_data
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _snappy(self, data: memoryview) -> memoryview | None:
        blocks = _snappy_blocks(data)
        sizes = [cramjam.snappy.decompress_raw_len(block) for block in blocks]
        size = sum(sizes)
        if size > self._max_bytes:
            return None
        room = memoryview(self._kept if size <= len(self._kept) else bytearray(size))
        at = 0
        for block, length in zip(blocks, sizes, strict=True):
            if length:
                cramjam.snappy.decompress_raw_into(block, room[at : at + length])
            at += length
        return room[:size]

    def _roomy(self, into: Any, data: memoryview) -> memoryview:
        """What a frame tells of its size may be a lie, if it tells it: what does not fit is tried with all the room that it may
        take, of which only what is written to becomes memory."""
        try:
            return memoryview(self._kept)[: into(data, self._kept)]
        except cramjam.DecompressionError:
            room = bytearray(self._max_bytes)
            return memoryview(room)[: into(data, room)]


def pieces(codec: Codec, data: memoryview) -> Iterator[bytes]:
    """The inflated bytes one after the other, a piece at a time, as far as is bearable; ends early where the data is damaged."""
    left = _SLOWLY_SCANNED_BYTES if codec is Codec.GZIP else MAX_SCANNED_BYTES
    try:
        for piece in _snappy_pieces(data) if codec is Codec.SNAPPY else _streamed(codec, data):
            yield piece
            left -= len(piece)
            if left <= 0:
                return
    except (cramjam.DecompressionError, OSError):
        return


def _snappy_pieces(data: memoryview) -> Iterator[bytes]:
    for block in _snappy_blocks(data):
        # A block is inflated whole or not at all.
        if cramjam.snappy.decompress_raw_len(block) > MAX_INFLATED_BYTES:
            return
        yield bytes(cramjam.snappy.decompress_raw(block))


def _streamed(codec: Codec, data: memoryview) -> Iterator[bytes]:
    # Who meets no such batch, which is nearly everybody, starts sooner without.
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(data), _STREAMED[codec]) as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def _snappy_blocks(data: memoryview) -> list[memoryview]:
    """The blocks of snappy-java's framing, or the one that stands without."""
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return [data]
    blocks, at = [], _XERIAL_HEADER_BYTES
    while at < len(data):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(data[at:begin], "big")
        blocks.append(data[begin:at])
    return blocks
