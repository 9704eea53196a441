"""What leaves a bucket when a range of a blob is read: that range, in requests of a moderate size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from rayline.errors import NotInStore
from runtime_env.store import Store, open_writable_store
from runtime_env.store.protocol import blob_path
from runtime_env.store.slices import SLICE_BYTES

MIB = 2**20


class BucketFile(AbstractBufferedFile):  # type: ignore[misc]
    """As the files of buckets: each request is a range, and what it read ahead stays in the file's cache."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=start, end=end)
        self.fs.sent.append(len(data))
        return data


class CountingBucket(MemoryFileSystem):  # type: ignore[misc]
    """A memory file system that answers as a bucket; `sent` holds the size of each answer to a range, in bytes."""

    protocol = "counted"
    sent: ClassVar[list[int]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("counted://", "memory://")))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **options)
        options = {name: value for name, value in options.items() if name in ("cache_type", "block_size")}
        return BucketFile(self, path, mode, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return bytes(self.store[self._strip_protocol(path)].getbuffer()[start:end])


@pytest.fixture
def bucket(tmp_path: Path) -> tuple[Store, CountingBucket, str, bytes]:
    """A store in such a bucket, and a blob of 24 MiB in it: its digest and bytes."""
    fsspec.register_implementation("counted", CountingBucket, clobber=True)
    store = open_writable_store(f"counted://{uuid4()}/store")
    data = b"".join(hashlib.sha256(str(number).encode()).digest() * 2**10 for number in range(24 * 32))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    (tmp_path / "blob").write_bytes(data)
    store.put_blob(digest, tmp_path / "blob")
    system: CountingBucket = store._files  # type: ignore[attr-defined]
    system.sent.clear()
    return store, system, digest, data


@pytest.mark.parametrize(("offset", "length"), [(0, MIB // 2), (5 * MIB + 7, 4 * MIB), (20 * MIB, 4 * MIB), (3, 1)])
@pytest.mark.parametrize("chunk", [256 * 2**10, 3 * MIB, -1])
def test_a_range_costs_the_bucket_that_range(
    bucket: tuple[Store, CountingBucket, str, bytes], offset: int, length: int, chunk: int
) -> None:
    store, system, digest, data = bucket
    with store.open_blob(digest, offset, length) as source:
        got = b"".join(iter(lambda: source.read(chunk), b""))
    assert got == data[offset : offset + length]
    assert length <= sum(system.sent) <= 1.05 * length
    assert max(system.sent) <= SLICE_BYTES, "more is memory of the agent"


def test_a_reader_that_stops_in_the_middle_has_cost_a_slice_at_most_beyond_what_it_took(
    bucket: tuple[Store, CountingBucket, str, bytes],
) -> None:
    store, system, digest, data = bucket
    with store.open_blob(digest, 0, len(data)) as source:
        assert source.read(MIB // 4) == data[: MIB // 4]
    assert sum(system.sent) <= SLICE_BYTES


def test_without_a_length_the_rest_of_the_blob_comes_once(bucket: tuple[Store, CountingBucket, str, bytes]) -> None:
    store, system, digest, data = bucket
    with store.open_blob(digest, 7) as source:
        assert b"".join(iter(lambda: source.read(MIB), b"")) == data[7:]
    assert sum(system.sent) == len(data) - 7


def test_a_blob_that_is_not_there_is_told_when_it_is_opened(bucket: tuple[Store, CountingBucket, str, bytes]) -> None:
    store, system, _, _ = bucket
    with pytest.raises(NotInStore):
        store.open_blob("sha256:" + "0" * 64, 0, 5)
    assert not any(blob_path("sha256:" + "0" * 64) in path for path in system.store)
