"""What stands in the place of aiokafka's reader of a fetch: it does not end at a header's name that is not UTF-8, and inflates no
batch beyond a bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.record.memory_records import MemoryRecords

from rayline.bus.cut_records import cut_records
from rayline.bus.inflation import MAX_INFLATED_BYTES, Inflater
from rayline.bus.record_batch import batch_end, checksum_holds, codec_bits, read_batch, read_head, records_of, with_records

_INFLATER: Final = Inflater()


@dataclass(slots=True)
class Allowance:
    """Inflated bytes that may still be handed out at this turn, over all partitions."""

    left_bytes: int


class TolerantRecords:
    """aiokafka's `MemoryRecords` over one partition's part of a fetch.

    Does not own the allowance: where it is used up, what follows is given up, and will be fetched again.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records: Any = MemoryRecords(data)
        self._position = 0
        self._allowance: Allowance | None = None
        self.wanted = 0  # the next offset to hand out, when it was last told

    def allow(self, allowance: Allowance, wanted: int) -> None:
        """Hand out so much from here on; `wanted` is the next offset to hand out."""
        self._allowance, self.wanted = allowance, wanted

    def has_next(self) -> bool:
        if self._allowance is not None and self._allowance.left_bytes <= 0:
            return False
        return bool(self._records.has_next())

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def next_batch(self) -> _TolerantBatch | None:
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin = self._position
        self._position = batch_end(self._data, begin)
        return _TolerantBatch(batch, self._data, begin, self._position, self)

    def inflate(self, begin: int, end: int) -> bytes | None:
        """The batch that stands there, uncompressed; None where it is too much, or damaged."""
        compressed = records_of(self._data, begin, end)
        found = _INFLATER.inflate(codec_bits(self._data, begin), compressed)
        if self._allowance is not None:
            self._allowance.left_bytes -= MAX_INFLATED_BYTES if found is None else len(found)
        return None if found is None else with_records(self._data, begin, found)


class _TolerantBatch:
    """aiokafka's batch; where its reader gives up, ours goes on."""

    def __init__(self, batch: Any, data: bytes, begin: int, end: int, part: TolerantRecords) -> None:
        self._batch = batch
        self._where = (data, begin, end)
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        """Whether the bytes are those that the producer wrote."""
        holds = checksum_holds(*self._where)
        return bool(self._batch.validate_crc()) if holds is None else holds

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        data, begin, end = self._where
        batch = self._batch
        if codec_bits(data, begin):
            whole = self._part.inflate(begin, end)
            if whole is None:
                yield from cut_records(read_head(data[begin:end]), records_of(data, begin, end), self._part.wanted)
                return
            data, begin, end = whole, 0, len(whole)
            batch = MemoryRecords(whole).next_batch()
        read = 0
        try:
            for record in batch:
                read += 1
                yield record
            return
        except UnicodeDecodeError:
            pass
        yield from read_batch(bytes(data[begin:end]))[read:]
