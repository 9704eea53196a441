"""Kafka's record batch, message format v2: written with headers that are encoded once for many records, and read with names
that need not be UTF-8. Format: Kafka's documentation, "Record Batch"."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import google_crc32c
from aiokafka.record.util import decode_varint

from rayline.bus.inflation import Codec
from rayline.jobs import Header

# base offset, length, leader epoch, magic, CRC | attributes, last delta, first and last time, producer id, epoch, sequence, count
_PREFIX: Final = struct.Struct(">qiibI")
_CHECKED: Final = struct.Struct(">hiqqqhii")
_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8
_LENGTH_END: Final = 12
_MAGIC_AT: Final = 16
_ATTRIBUTES_END: Final = 23
_HEAD_BYTES: Final = _PREFIX.size + _CHECKED.size
_MAGIC: Final = 2
_CODEC: Final = 0x07
_STAMPED_BY_BROKER: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_NO_LEADER_EPOCH: Final = -1
MAX_BATCH_BYTES: Final = 1024 * 1024


def _varint(value: int) -> bytes:
    """A zigzag varint."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(0x80 | (rest & 0x7F))
        rest >>= 7
    out.append(rest)
    return bytes(out)


_MANY: Final = 8192
_VARINTS: Final = tuple(_varint(number) for number in range(_MANY))
_NULL: Final = _varint(-1)
# Attributes, time delta and offset delta.
_STARTS: Final = tuple(b"\0\0" + number for number in _VARINTS)


def varint(number: int) -> bytes:
    """A number of at least 0 as Kafka's varint."""
    return _VARINTS[number] if number < _MANY else _varint(number)


def header_name(name: str) -> bytes:
    """The first half of an encoded header; the value's varint length and bytes follow. What is not text in a name is written as
    an escape: no reader stumbles over it again."""
    raw = name.encode("utf-8", "backslashreplace")
    return varint(len(raw)) + raw


def encode_header(name: str, value: bytes | None) -> bytes:
    """One header as it stands in a record."""
    return header_name(name) + (_NULL if value is None else varint(len(value)) + value)


def encode_headers(headers: Sequence[Header]) -> bytes:
    """All headers of a record: their number, then each."""
    return varint(len(headers)) + b"".join([encode_header(name, value) for name, value in headers])


NO_HEADERS: Final = encode_headers(())


class RecordBatchWriter:
    """One transactional record batch under construction for one partition, without compression.

    Owns the records so far. Does not own the producer's identity, nor the place of the batch in its sequence.
    """

    __slots__ = ("_count", "_created_ms", "_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0
        self._size = _HEAD_BYTES
        self._created_ms = int(time.time() * 1000)

    def append(
        self, *, key: bytes | None, value: bytes | None, headers: bytes = NO_HEADERS, full_bytes: int = MAX_BATCH_BYTES
    ) -> bool:
        """Add a record with encoded headers; False when the batch would be larger than `full_bytes` and did not take it (a first
        one is always taken)."""
        count = self._count
        start = _STARTS[count] if count < _MANY else b"\0\0" + _varint(count)
        key_size = _NULL if key is None else varint(len(key))
        value_size = _NULL if value is None else varint(len(value))
        key, value = key or b"", value or b""
        body = len(start) + len(key_size) + len(key) + len(value_size) + len(value) + len(headers)
        length = varint(body)
        size = self._size + len(length) + body
        if count and size > full_bytes:
            return False
        self._parts += (length, start, key_size, key, value_size, value, headers)
        self._count = count + 1
        self._size = size
        return True

    def size(self) -> int:
        """Bytes so far."""
        return self._size

    def record_count(self) -> int:
        """Records so far."""
        return self._count

    def build(self, producer_id: int, producer_epoch: int, base_sequence: int) -> bytes:
        """The batch as it goes over the wire; a retry must send the same bytes."""
        count = self._count
        state = (producer_id, producer_epoch, base_sequence)
        fields = _CHECKED.pack(_TRANSACTIONAL, count - 1, self._created_ms, self._created_ms, *state, count)
        checked = b"".join((fields, *self._parts))
        length = _PREFIX.size - _LENGTH_END + len(checked)
        return _PREFIX.pack(0, length, _NO_LEADER_EPOCH, _MAGIC, google_crc32c.value(checked)) + checked


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record as it stands in a batch. `timestamp_type` is 1 where the broker gave the time; this format has no `checksum`."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class BatchHead:
    """What stands before the records. `last_offset` stays what it was when compaction takes records away."""

    base_offset: int
    last_offset: int
    codec: Codec
    timestamp_type: int
    first_timestamp: int
    max_timestamp: int
    count: int

    def timestamp(self, delta: int) -> int:
        """Of a record with this delta, epoch ms."""
        return self.max_timestamp if self.timestamp_type else self.first_timestamp + delta


def read_head(data: bytes | memoryview) -> BatchHead:
    """The head of a batch of this format. Raises ValueError for a codec that there is not."""
    (base_offset, *_) = _PREFIX.unpack_from(data)
    attributes, last_delta, first, latest, _, _, _, count = _CHECKED.unpack_from(data, _PREFIX.size)
    by_broker = int(bool(attributes & _STAMPED_BY_BROKER))
    return BatchHead(base_offset, base_offset + last_delta, Codec(attributes & _CODEC), by_broker, first, latest, count)


def codec_bits(data: bytes, begin: int) -> int:
    """What the batch that begins there is compressed with, as a number; 0 where it is not, or is not one of ours to inflate."""
    bits = data[begin + _ATTRIBUTES_END - 1] & _CODEC
    return bits if bits <= Codec.ZSTD and data[begin + _MAGIC_AT] == _MAGIC else 0


def batch_end(data: bytes, begin: int) -> int:
    """Where the batch ends that begins there."""
    (length,) = _LENGTH.unpack_from(data, begin + _LENGTH_AT)
    return begin + _LENGTH_END + int(length)


def checksum_holds(data: bytes, begin: int, end: int) -> bool | None:
    """Whether the bytes are those that the producer wrote; None for an old format, which has another checksum."""
    if data[begin + _MAGIC_AT] != _MAGIC:
        return None
    (*_, expected) = _PREFIX.unpack_from(data, begin)
    return bool(google_crc32c.value(bytes(data[begin + _PREFIX.size : end])) == expected)


def records_of(data: bytes, begin: int, end: int) -> memoryview:
    """The records of a batch, as they are compressed."""
    return memoryview(data)[begin + _HEAD_BYTES : end]


def with_records(data: bytes, begin: int, records: memoryview | bytes) -> bytes:
    """The same batch with other, uncompressed records; its checksum is not made anew."""
    head = bytearray(data[begin : begin + _HEAD_BYTES])
    _LENGTH.pack_into(head, _LENGTH_AT, _HEAD_BYTES - _LENGTH_END + len(records))
    head[_ATTRIBUTES_END - 1] &= ~_CODEC
    return b"".join((head, records))


def read_batch(data: bytes) -> list[ReadRecord]:
    """All records of one batch that is not compressed; bytes of a header's name that are not UTF-8 become surrogates
    (`surrogateescape`)."""
    head = read_head(data)
    buffer, position = bytearray(data), _HEAD_BYTES
    records = []
    for _ in range(head.count):
        length, position = decode_varint(buffer, position)
        end = position + length
        time_delta, position = decode_varint(buffer, position + 1)
        delta, position = decode_varint(buffer, position)
        key, position = _bytes(buffer, position)
        value, position = _bytes(buffer, position)
        count, position = decode_varint(buffer, position)
        headers = []
        for _ in range(count):
            name, position = _bytes(buffer, position)
            raw, position = _bytes(buffer, position)
            headers.append((text_of(name), raw))
        timestamp = head.timestamp(time_delta)
        records.append(ReadRecord(head.base_offset + delta, timestamp, head.timestamp_type, key, value, headers))
        position = end
    return records


def text_of(name: bytes | None) -> str:
    """A header's name, with surrogates for what is not UTF-8."""
    return (name or b"").decode("utf-8", "surrogateescape")


def _bytes(buffer: bytearray, position: int) -> tuple[bytes | None, int]:
    length, position = decode_varint(buffer, position)
    if length < 0:
        return None, position
    return bytes(buffer[position : position + length]), position + length
