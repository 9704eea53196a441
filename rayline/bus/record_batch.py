"""Kafka's record batch, message format v2: written with headers that are encoded once for many records, and read with names
that need not be UTF-8. Format: Kafka's documentation, "Record Batch"."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from rayline.jobs import Header

# base offset, length, leader epoch, magic, CRC | attributes, last delta, first and last time, producer id, epoch, sequence, count
_PREFIX: Final = struct.Struct(">qiibI")
_CHECKED: Final = struct.Struct(">hiqqqhii")
_LENGTH_AT: Final = 8
_LENGTH_END: Final = 12
_MAGIC_AT: Final = 16
_CRC_AT: Final = 17
_MAGIC: Final = 2
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
        self._size = _PREFIX.size + _CHECKED.size
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
    """A record as it stands in a batch. `timestamp_type` is 1 where the broker gave the time."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def read_batch(data: bytes) -> list[ReadRecord]:
    """All records of one batch; bytes of a header's name that are not UTF-8 become surrogates (`surrogateescape`)."""
    batch = _DefaultRecordBatchPy(data)
    batch._maybe_uncompress()
    buffer, position = batch._buffer, batch._pos
    stamped_by_broker = batch.timestamp_type
    records = []
    for _ in range(batch._num_records):
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
            headers.append(((name or b"").decode("utf-8", "surrogateescape"), raw))
        records.append(
            ReadRecord(
                batch.base_offset + delta,
                batch.max_timestamp if stamped_by_broker else batch.first_timestamp + time_delta,
                stamped_by_broker,
                key,
                value,
                headers,
            )
        )
        position = end
    return records


def _bytes(buffer: bytearray, position: int) -> tuple[bytes | None, int]:
    length, position = decode_varint(buffer, position)
    if length < 0:
        return None, position
    return bytes(buffer[position : position + length]), position + length


class TolerantRecords:
    """aiokafka's `MemoryRecords` over one partition's part of a fetch, which does not end at a header name that is not UTF-8."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records: Any = MemoryRecords(data)
        self._position = 0

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def next_batch(self) -> _TolerantBatch | None:
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin = self._position
        (length,) = struct.unpack_from(">i", self._data, begin + _LENGTH_AT)
        self._position = begin + _LENGTH_END + length
        return _TolerantBatch(batch, self._data, begin, self._position)


class _TolerantBatch:
    """aiokafka's batch; where its reader gives up, ours goes on."""

    def __init__(self, batch: Any, data: bytes, begin: int, end: int) -> None:
        self._batch = batch
        self._where = (data, begin, end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        """Whether the bytes are those that the producer wrote."""
        data, begin, end = self._where
        if data[begin + _MAGIC_AT] != _MAGIC:
            return bool(self._batch.validate_crc())
        (expected,) = struct.unpack_from(">I", data, begin + _CRC_AT)
        return bool(google_crc32c.value(bytes(data[begin + _PREFIX.size : end])) == expected)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                read += 1
                yield record
            return
        except UnicodeDecodeError:
            data, begin, end = self._where
        yield from read_batch(bytes(data[begin:end]))[read:]
