"""The records of a batch that inflates too far, without their values: who they are is found out as far as is bearable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rayline.bus.inflation import pieces
from rayline.bus.record_batch import BatchHead, ReadRecord, text_of

MAX_SCANNED_RECORDS: Final = 10_000
# What is kept of a record; more than any lane accepts.
MAX_KEPT_BYTES: Final = 64 * 1024
_VARINT_BITS: Final = 63


@dataclass(frozen=True, slots=True)
class CutRecord(ReadRecord):
    """A record whose value was not taken into memory (`value` is None): its batch inflates too far, or is damaged.

    Key and headers are missing where they are large, or stand too far behind.
    """


def cut_records(head: BatchHead, compressed: memoryview, position: int) -> Iterator[CutRecord]:
    """All records of a batch from the offset `position` on; holds one small piece of it at a time."""
    told, left = head.base_offset, head.count
    if position - told < MAX_SCANNED_RECORDS:
        for record in _scan(head, _Inflating(pieces(head.codec, compressed))):
            told, left = record.offset + 1, left - 1
            yield record
    # The broker has seen to it that a batch is as long as it says.
    for offset in range(max(told, position), min(head.last_offset + 1, told + left)):
        yield CutRecord(offset, head.max_timestamp, head.timestamp_type, None, None, [])


def _scan(head: BatchHead, inflating: _Inflating) -> Iterator[CutRecord]:
    """Ends with the record behind whose key the bytes end."""
    for _ in range(min(head.count, MAX_SCANNED_RECORDS)):
        try:
            end = inflating.varint() + inflating.position
            inflating.skip(1)
            timestamp = head.timestamp(inflating.varint())
            offset = head.base_offset + inflating.varint()
            key = inflating.blob()
        except EOFError:
            return
        try:
            inflating.skip(max(0, inflating.varint()))
            headers = _headers(inflating)
            inflating.skip(end - inflating.position)
        except EOFError:
            yield CutRecord(offset, timestamp, head.timestamp_type, key, None, [])
            return
        yield CutRecord(offset, timestamp, head.timestamp_type, key, None, headers)


def _headers(inflating: _Inflating) -> list[tuple[str, bytes | None]]:
    """All, or none where they are more than is kept."""
    headers, size = [], 0
    for _ in range(inflating.varint()):
        name, raw = inflating.blob(), inflating.blob()
        size += len(name or b"") + len(raw or b"") + 2
        if size > MAX_KEPT_BYTES:
            return []
        headers.append((text_of(name), raw))
    return headers


class _Inflating:
    """Reads forward through pieces. `position` counts the bytes from the beginning. Raises EOFError where they end."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._piece = b""
        self._at = 0
        self.position = 0

    def skip(self, count: int) -> None:
        """Go on by so many bytes."""
        if count < 0:
            raise EOFError
        while count > (rest := len(self._piece) - self._at):
            count -= rest
            self.position += rest
            self._next()
        self._at += count
        self.position += count

    def blob(self) -> bytes | None:
        """Bytes behind their length; None for null, and for more than is kept."""
        length = self.varint()
        if length < 0:
            return None
        if length > MAX_KEPT_BYTES:
            self.skip(length)
            return None
        parts = []
        while length > (rest := len(self._piece) - self._at):
            parts.append(self._piece[self._at :])
            length -= rest
            self.position += rest
            self._next()
        parts.append(self._piece[self._at : self._at + length])
        self._at += length
        self.position += length
        return b"".join(parts)

    def varint(self) -> int:
        """A zigzag varint."""
        value, shift = 0, 0
        while True:
            while self._at >= len(self._piece):
                self._next()
            byte = self._piece[self._at]
            self._at += 1
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > _VARINT_BITS:
                raise EOFError

    def _next(self) -> None:
        piece = next(self._source, None)
        if piece is None:
            raise EOFError
        self._piece, self._at = piece, 0
