"""Compressed batches: what inflates too far is never held whole, and each record of it is handed out without its value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import aiokafka.codec as codecs
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from rayline.bus import cut_records
from rayline.bus.cut_records import CutRecord
from rayline.bus.inflation import MAX_INFLATED_BYTES, Codec, Inflater, pieces
from rayline.bus.record_batch import encode_headers, read_batch, records_of, varint, with_records
from rayline.bus.tolerant_records import Allowance, TolerantRecords

MIB = 1 << 20
ENCODE = {
    Codec.GZIP: lambda data: codecs.gzip_encode(data, 1),
    Codec.SNAPPY: codecs.snappy_encode,
    Codec.LZ4: codecs.lz4_encode,
    Codec.ZSTD: codecs.zstd_encode,
}
ALL = pytest.mark.parametrize("codec", list(ENCODE), ids=lambda codec: codec.name.lower())
ID = [("job-id", b"mine")]


def batch(codec: Codec, *values: bytes, first: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for number, value in enumerate(values):
        builder.append(number, 1_000 + number, b"k%d" % number, value, ID)
    data = bytearray(builder.build())
    data[:8] = first.to_bytes(8, "big")
    return bytes(data)


def bomb(codec: Codec, inflated_mib: int) -> bytes:
    """A batch of two records, of which the first holds so many MiB of nothing; made without holding them."""
    size = inflated_mib * MIB
    # Attributes, time and offset: all 0.
    start = b"\0\0\0" + varint(1) + b"k" + varint(size)
    end = encode_headers(ID)
    after = b"\0" + varint(1) + varint(1) + varint(1) + b"l" + varint(1) + b"v" + encode_headers(())
    parts = [varint(len(start) + size + len(end)) + start, *[bytes(64 * MIB)] * (inflated_mib // 64)]
    parts.append(end + varint(len(after)) + after)
    encoded = {part: ENCODE[codec](part) for part in set(parts)}
    # Frames, members and blocks may follow each other.
    header = 16 if codec is Codec.SNAPPY else 0
    compressed = b"".join(encoded[part][header if at else 0 :] for at, part in enumerate(parts))
    data = bytearray(with_records(batch(Codec.NONE, b"x", b"x"), 0, memoryview(compressed)))
    data[22] |= codec
    return bytes(data)


def read(data: bytes, wanted: int = 0) -> list[Any]:
    part = TolerantRecords(data)
    part.allow(Allowance(1), wanted)
    return list(part.next_batch() or ())


@ALL
@given(
    data=st.one_of(st.binary(min_size=1, max_size=3_000), st.integers(1, 300_000).map(bytes)), max_bytes=st.integers(1, 300_000)
)
def test_what_fits_is_inflated_and_nothing_more(codec: Codec, data: bytes, max_bytes: int) -> None:
    found = Inflater(max_bytes).inflate(codec, memoryview(ENCODE[codec](data)))
    assert (found is None) == (len(data) > max_bytes)
    assert found is None or bytes(found) == data
    assert b"".join(pieces(codec, memoryview(ENCODE[codec](data)))) == data


@ALL
@given(data=st.binary(max_size=300))
def test_damaged_data_ends_early_and_raises_nothing(codec: Codec, data: bytes) -> None:
    Inflater(1_000).inflate(codec, memoryview(data))
    assert sum(map(len, pieces(codec, memoryview(data)))) < MIB


@ALL
def test_every_record_of_a_batch_that_inflates_too_far_is_handed_out_cut(codec: Codec) -> None:
    first, second = read(bomb(codec, 128))
    assert isinstance(first, CutRecord)
    assert isinstance(second, CutRecord)
    assert (first.offset, first.key, first.value, first.headers) == (0, b"k", None, ID)
    assert (second.offset, second.key, second.value, second.headers) == (1, b"l", None, [])


@ALL
def test_a_damaged_batch_is_passed_record_by_record(codec: Codec) -> None:
    whole = batch(codec, b"a" * 100, b"b" * 100, b"c" * 100)
    compressed = records_of(whole, 0, len(whole))
    damaged = bytearray(with_records(whole, 0, compressed[: len(compressed) // 2]))
    damaged[22] |= codec
    found = read(bytes(damaged))
    assert [(record.offset, record.value) for record in found] == [(0, None), (1, None), (2, None)]


def test_the_largest_job_that_a_manifest_allows_is_read_whole() -> None:
    (record,) = read(batch(Codec.ZSTD, bytes(64 * MIB)))
    assert len(record.value) == 64 * MIB
    assert MAX_INFLATED_BYTES > 64 * MIB


def test_records_behind_those_that_are_looked_at_are_handed_out_from_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cut_records, "MAX_SCANNED_RECORDS", 2)
    data = batch(Codec.ZSTD, *[bytes(20 * MIB)] * 4, first=100)
    assert [(record.offset, record.key) for record in read(data)] == [(100, b"k0"), (101, b"k1"), (102, None), (103, None)]
    assert [(record.offset, record.key) for record in read(data, 103)] == [(103, None)]


def test_a_name_that_is_not_utf8_costs_its_own_record_in_a_compressed_batch_too() -> None:
    builder = DefaultRecordBatchBuilder(2, Codec.LZ4, 0, -1, -1, -1, 1 << 20)
    plain = with_records(bytes(builder.build()), 0, memoryview(b""))
    records = b""
    for number in range(2):
        body = b"\0\0" + varint(number) + varint(1) + b"k" + varint(1) + b"v" + varint(1) + varint(1) + b"\xff" + varint(1) + b"h"
        records += varint(len(body)) + body
    data = bytearray(with_records(plain, 0, memoryview(codecs.lz4_encode(records))))
    data[22] |= Codec.LZ4
    data[57:61] = (2).to_bytes(4, "big")
    assert [(record.offset, record.headers) for record in read(bytes(data))] == [(n, [("\udcff", b"h")]) for n in range(2)]


def test_a_poll_hands_out_no_batch_beyond_its_allowance_and_what_follows_is_fetched_again() -> None:
    """aiokafka's generator ends where `has_next` is False: its position is then behind the last batch that was handed out."""
    part = TolerantRecords(b"".join(batch(Codec.ZSTD, bytes(MIB), first=number) for number in range(4)))
    assert part.has_next()
    part.allow(Allowance(MIB + MIB // 2), 0)
    found = []
    while part.has_next():
        following = part.next_batch()
        assert following is not None
        found += [record.offset for record in following]
    assert found == [0, 1]


def test_uncompressed_batches_use_up_no_allowance() -> None:
    part = TolerantRecords(batch(Codec.NONE, bytes(MIB)) * 3)
    allowance = Allowance(1)
    part.allow(allowance, 0)
    count = 0
    while part.has_next():
        count += len(list(part.next_batch() or ()))
    assert (count, allowance.left_bytes) == (3, 1)


def test_memory_stays_flat_while_a_gigabyte_is_passed(tmp_path: Path) -> None:
    """In a process of its own: what libraries hold outside of Python counts too."""
    for codec in ENCODE:
        (tmp_path / codec.name).write_bytes(bomb(codec, 1024))
    script = f"""
import pathlib
import pyarrow
from rayline.bus.cut_records import CutRecord
from rayline.bus.tolerant_records import TolerantRecords
def peak_mib():
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024
files = [path.read_bytes() for path in sorted(pathlib.Path({str(tmp_path)!r}).iterdir())]
before = peak_mib()
for data in files:
    found = list(TolerantRecords(data).next_batch())
    assert len(found) == 2 and all(type(record) is CutRecord for record in found)
print(len(files), peak_mib() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    count, grown_mib = map(int, done.stdout.split())
    assert count == len(ENCODE)
    assert grown_mib < 200


def test_what_was_inflated_is_the_same_batch() -> None:
    data = batch(Codec.GZIP, b"a", b"b", first=7)
    plain = TolerantRecords(data).inflate(0, len(data))
    assert plain is not None
    assert [(r.offset, r.key, r.value, r.headers, r.timestamp) for r in read_batch(plain)] == [
        (7, b"k0", b"a", ID, 1_000),
        (8, b"k1", b"b", ID, 1_001),
    ]
