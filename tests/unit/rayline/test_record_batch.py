"""Record batches: what we write aiokafka reads, what aiokafka writes we read, and a name that is not UTF-8 stops nobody."""

from __future__ import annotations

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from rayline.bus.record_batch import (
    MAX_BATCH_BYTES,
    RecordBatchWriter,
    encode_headers,
    read_batch,
    varint,
)
from rayline.bus.tolerant_records import TolerantRecords

texts = st.text(max_size=20)
blobs = st.one_of(st.none(), st.binary(max_size=200))
records = st.lists(st.tuples(blobs, blobs, st.lists(st.tuples(texts, blobs), max_size=3)), min_size=1, max_size=8)
Records = list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]


def written(contents: Records) -> bytes:
    writer = RecordBatchWriter()
    for key, value, headers in contents:
        assert writer.append(key=key, value=value, headers=encode_headers(headers))  # type: ignore[arg-type]
    return writer.build(77, 3, 5)


def by_aiokafka(contents: Records, codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for offset, (key, value, headers) in enumerate(contents):
        builder.append(offset, 1_000 + offset, key, value, headers)
    return bytes(builder.build())


def seen(found: list[object]) -> list[tuple[object, ...]]:
    return [(r.offset, r.key, r.value, list(r.headers)) for r in found]  # type: ignore[attr-defined]


@given(records)
def test_a_batch_that_we_write_is_whole_for_kafkas_readers(contents: Records) -> None:
    data = written(contents)
    reader = MemoryRecords(data)
    batch = reader.next_batch()
    assert batch is not None
    assert batch.validate_crc()
    assert batch.is_transactional
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (77, 3, 5)
    assert batch.next_offset == len(contents)
    assert seen(list(batch)) == [(n, key, value, headers) for n, (key, value, headers) in enumerate(contents)]
    assert reader.next_batch() is None


@given(records, st.sampled_from([0, 1, 2, 3, 4]))
def test_a_batch_of_any_compression_is_read_as_aiokafka_reads_it(contents: Records, codec: int) -> None:
    data = by_aiokafka(contents, codec)
    theirs = list(MemoryRecords(data).next_batch() or ())
    ours = list(TolerantRecords(data).next_batch() or ())
    assert seen(list(ours)) == seen(list(theirs))
    assert [(r.timestamp, r.timestamp_type) for r in ours] == [(r.timestamp, r.timestamp_type) for r in theirs]


@given(records)
def test_a_batch_is_read_record_by_record_as_aiokafka_reads_it(contents: Records) -> None:
    data = by_aiokafka(contents)
    theirs = list(MemoryRecords(data).next_batch() or ())
    ours = read_batch(data)
    assert seen(list(ours)) == seen(list(theirs))
    assert [(r.timestamp, r.timestamp_type) for r in ours] == [(r.timestamp, r.timestamp_type) for r in theirs]


@given(st.integers(min_value=0, max_value=1 << 40))
def test_varints_are_kafkas(number: int) -> None:
    from aiokafka.record.util import decode_varint

    assert decode_varint(bytearray(varint(number)), 0)[0] == number


def test_a_full_batch_takes_no_more_but_always_a_first_record() -> None:
    writer = RecordBatchWriter()
    assert writer.append(key=None, value=bytes(2 * MAX_BATCH_BYTES))
    assert not writer.append(key=None, value=b"x")
    assert (writer.record_count(), writer.size()) == (1, len(writer.build(-1, -1, -1)))


def test_a_name_that_is_not_utf8_is_handed_out_marked_and_what_follows_it_too() -> None:
    def batch(*names: bytes) -> bytes:
        writer = RecordBatchWriter()
        for name in names:
            writer.append(key=None, value=name, headers=varint(1) + varint(len(name)) + name + varint(1) + b"v")
        return writer.build(-1, -1, -1)

    reader = TolerantRecords(batch(b"plain", b"a\xff\xfe", b"after") + batch(b"next"))
    found = []
    while reader.has_next():
        following = reader.next_batch()
        assert following is not None
        assert following.validate_crc()
        found += [(record.value, record.headers) for record in following]
    assert found == [
        (b"plain", [("plain", b"v")]),
        (b"a\xff\xfe", [("a\udcff\udcfe", b"v")]),
        (b"after", [("after", b"v")]),
        (b"next", [("next", b"v")]),
    ]


@given(records, st.data())
def test_a_batch_with_a_changed_byte_is_not_taken_for_whole(contents: Records, data: st.DataObject) -> None:
    whole = by_aiokafka(contents)
    at = data.draw(st.integers(21, len(whole) - 1))
    changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    for one, is_whole in ((whole, True), (changed, False)):
        batch = TolerantRecords(one).next_batch()
        assert batch is not None
        assert batch.validate_crc() is is_whole


def test_a_batch_of_the_old_format_is_checked_too() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(0, 1_000, b"key", b"value")
    whole = bytes(builder.build())
    for one, is_whole in ((whole, True), (whole[:-1] + bytes([whole[-1] ^ 1]), False)):
        batch = TolerantRecords(one).next_batch()
        assert batch is not None
        assert batch.validate_crc() is is_whole


def test_a_marked_name_is_written_in_a_form_that_every_reader_takes() -> None:
    (record,) = read_batch(written([(None, b"x", [("a\udcff", b"v")])]))
    assert record.headers == [("a\\udcff", b"v")]
