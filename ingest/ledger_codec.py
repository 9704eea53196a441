"""The ledger as text for Kafka's commit metadata: which offsets beyond the committed one are published already.

Text is base64 of: format version (1 byte) · code (1 byte) · owner's length (1 byte) and UTF-8 · span in bits (4 bytes) · CRC-32
of all else (4 bytes) · the map. Bit i of the map stands for the offset `committed + i`. The map is the smaller of a bitmap and
of Rice-coded run lengths. Kafka takes 4,096 characters.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from rayline.errors import FormatError

MAX_CHARS: Final = 4096
MAX_OWNER_BYTES: Final = 255
_VERSION: Final = 1
MAX_SPAN_BITS: Final = 1 << 24
# A bitmap of so many offsets fits into MAX_CHARS, with an owner of any length.
SPAN_THAT_FITS: Final = 20_000
# Run lengths cost a Python loop: only where the bitmap is not small anyway.
_BITMAP_IS_SMALL_BYTES: Final = 512

Bits = npt.NDArray[np.uint8]


class _Code(IntEnum):
    BITMAP = 0
    RICE = 1


@dataclass(frozen=True, slots=True)
class LedgerText:
    """What commit metadata says: who committed, and the published offsets relative to the committed one (sorted, unique)."""

    owner: str
    published: npt.NDArray[np.int64]


def chars_under_any_owner(owner: str, text: str) -> int:
    """How long this text of `encode` becomes when the owner with the longest name writes the same map."""
    size = len(text) // 4 * 3 - text[-2:].count("=")
    return 4 * -(-(size - len(owner.encode()) + MAX_OWNER_BYTES) // 3)


def encode(owner: str, published: npt.NDArray[np.int64]) -> str:
    """Text for offsets relative to the committed one (sorted, unique, ≥ 0). It may be longer than MAX_CHARS."""
    name = owner.encode()
    if len(name) > MAX_OWNER_BYTES:
        raise FormatError(f"the owner's name has {len(name)} bytes; the limit is {MAX_OWNER_BYTES}")
    span = int(published[-1]) + 1 if len(published) else 0
    bits = np.zeros(span, dtype=np.uint8)
    bits[published] = 1
    code, body = _Code.BITMAP, np.packbits(bits).tobytes()
    if len(body) > _BITMAP_IS_SMALL_BYTES:
        runs = _encode_runs(bits)
        if len(runs) < len(body):
            code, body = _Code.RICE, runs
    head = struct.pack(">BBB", _VERSION, code, len(name)) + name + struct.pack(">I", span)
    return base64.b64encode(head + struct.pack(">I", zlib.crc32(head + body)) + body).decode("ascii")


def decode(text: str) -> LedgerText:
    """Read `encode` back. Empty text (nobody committed a ledger) is an empty ledger without owner.

    Raises:
        FormatError: it is not a ledger; going on would lose or repeat results.
    """
    if not text:
        return LedgerText("", np.empty(0, dtype=np.int64))
    try:
        data = base64.b64decode(text, validate=True)
        version, code, length = struct.unpack_from(">BBB", data)
        if version != _VERSION:
            raise FormatError(f"a ledger of version {version}; this Rayline reads version {_VERSION}: upgrade it")
        name = data[3 : 3 + length]
        span, checksum = struct.unpack_from(">II", data, 3 + length)
        body = data[11 + length :]
        if zlib.crc32(data[: 7 + length] + body) != checksum:
            raise FormatError("the ledger's checksum does not match its content")
        if span > MAX_SPAN_BITS:
            raise FormatError(f"a ledger of {span} offsets; the limit is {MAX_SPAN_BITS}")
        bits = _decode_bitmap(body, span) if _Code(code) is _Code.BITMAP else _decode_runs(body, span)
        return LedgerText(name.decode(), np.flatnonzero(bits).astype(np.int64))
    except (ValueError, struct.error, binascii.Error, IndexError) as error:
        raise FormatError(f"the commit metadata {text[:40]!r} is not a Rayline ledger ({error!r})") from error


def _decode_bitmap(body: bytes, span: int) -> Bits:
    bits = np.unpackbits(np.frombuffer(body, dtype=np.uint8))
    if len(bits) < span:
        raise FormatError(f"the ledger's map has {len(bits)} bits; its span says {span}")
    return bits[:span]


def _encode_runs(bits: Bits) -> bytes:
    """Lengths of alternating runs, zeros first; each kind has its own Rice parameter. First byte: the two parameters."""
    edges = np.flatnonzero(np.diff(bits)) + 1
    lengths = np.diff(np.concatenate(([0], edges, [len(bits)])))
    if bits[0] == 1:
        lengths = np.concatenate(([0], lengths))
    parameters = [_rice_parameter(lengths[0::2]), _rice_parameter(lengths[1::2])]
    pieces = []
    for number, length in enumerate(lengths.tolist()):
        k = parameters[number & 1]
        quotient = length >> k
        pieces.append("1" * quotient + "0" + (format(length & ((1 << k) - 1), f"0{k}b") if k else ""))
    stream = "".join(pieces)
    packed = np.packbits(np.frombuffer(stream.encode("ascii"), dtype=np.uint8) - ord("0"))
    return bytes([parameters[0] << 4 | parameters[1]]) + packed.tobytes()


def _decode_runs(body: bytes, span: int) -> Bits:
    parameters = (body[0] >> 4, body[0] & 15)
    stream = np.unpackbits(np.frombuffer(body, dtype=np.uint8, offset=1))
    bits = np.zeros(span, dtype=np.uint8)
    zeros = np.flatnonzero(stream == 0)
    at, start, number = 0, 0, 0
    while start < span:
        k = parameters[number & 1]
        next_zero = np.searchsorted(zeros, at)
        if next_zero == len(zeros):
            raise FormatError("the ledger's runs end before its span does")
        stop = int(zeros[next_zero])
        low = stream[stop + 1 : stop + 1 + k]
        length = (stop - at) << k
        for bit in low.tolist():
            length_low = bit
            k -= 1
            length += length_low << k
        at = stop + 1 + parameters[number & 1]
        if start + length > span:
            raise FormatError("the ledger's runs are longer than its span")
        if number & 1:
            bits[start : start + length] = 1
        start += length
        number += 1
    return bits


def _rice_parameter(lengths: npt.NDArray[np.int64]) -> int:
    """The k for which quotients and remainders are shortest together."""
    if not len(lengths):
        return 0
    return min(range(16), key=lambda k: int((lengths >> k).sum()) + len(lengths) * (k + 1))
