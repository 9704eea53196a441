"""The cache stays within its quota by letting go of what was of no use for longest, and never of what somebody uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.errors import DiskFull
from runtime_env.peers.cache import BlobCache, Entry, choose_evictions

KIB = 2**10


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def cache_of(folder: Path, *numbers: int, quota: int = 256 * KIB) -> BlobCache:
    cache = BlobCache(path=folder, quota_bytes=quota, free_bytes=0)
    for number in numbers:
        put(cache, number)
    return cache


def put(cache: BlobCache, number: int, size: int = 64 * KIB) -> None:
    with cache.room_for(digest(number), size):
        cache.blob(digest(number)).write_bytes(bytes([number]) * size)
        cache.find(digest(number))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100)), max_size=20), st.integers(-5, 500), st.sets(st.integers(0, 19))
)
def test_only_the_oldest_go_and_no_more_than_needed(facts: list[tuple[int, int]], needed: int, kept: set[int]) -> None:
    entries = [Entry(used, digest(number), size) for number, (used, size) in enumerate(facts)]
    keep = frozenset(digest(number) for number in kept)
    chosen = choose_evictions(entries, kept=keep, free_bytes=needed)
    assert not {entry.digest for entry in chosen} & keep
    assert sum(entry.bytes for entry in chosen[:-1]) < max(needed, 1)
    stayed = [entry for entry in entries if entry not in chosen and entry.digest not in keep]
    assert sum(entry.bytes for entry in chosen) >= needed or not stayed
    assert not chosen or all(entry >= max(chosen) for entry in stayed)


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 1, 2, 3, 4)
    assert cache.find(digest(1)) is not None
    put(cache, 5)
    assert cache.digests() == {digest(number) for number in (1, 3, 4, 5)}
    assert cache.used_bytes() <= 256 * KIB


def test_use_is_remembered_over_a_restart(tmp_path: Path) -> None:
    cache_of(tmp_path, 1, 2, 3, 4).find(digest(1))
    cache = cache_of(tmp_path)
    put(cache, 5)
    assert digest(1) in cache.digests()


def test_a_lease_of_another_process_keeps_a_blob_until_that_process_dies(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 1, 2, 3, 4)
    code = (
        "import sys; from pathlib import Path; from runtime_env.peers.cache import BlobCache\n"
        f"lease = BlobCache(path=Path({str(tmp_path)!r}), quota_bytes=1).lease({digest(1)!r})\n"
        "print('leased', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"leased\n"
    for number in (2, 3, 4):
        cache.find(digest(number))
    put(cache, 5)
    assert digest(1) in cache.digests()
    holder.kill()
    holder.communicate()
    for number in (3, 4, 5):
        cache.find(digest(number))
    put(cache, 6)
    assert digest(1) not in cache.digests()


def test_when_all_is_in_use_a_new_blob_is_refused(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 1, 2, 3, 4)
    leases = [cache.lease(digest(number)) for number in (1, 2, 3, 4)]
    with pytest.raises(DiskFull, match="raise the quota"):
        put(cache, 5)
    assert len(cache.digests()) == 4
    assert leases[0] is not None
    leases[0].release()
    put(cache, 5)
    assert digest(1) not in cache.digests()


def test_a_lease_on_what_is_not_here_is_none(tmp_path: Path) -> None:
    assert cache_of(tmp_path).lease(digest(9)) is None


def test_what_is_on_its_way_counts_and_is_not_collected(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 1)
    with cache.room_for(digest(2), 150 * KIB):
        (cache.incoming / f"{2:064x}").write_bytes(bytes(10 * KIB))
        put(cache, 3)
        assert cache.digests() == {digest(3)}
        assert (cache.incoming / f"{2:064x}").exists()
        with pytest.raises(DiskFull):
            put(cache, 4, size=200 * KIB)


def test_an_abandoned_part_goes_first(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 1, 2, 3)
    (cache.incoming / f"{9:064x}").write_bytes(bytes(64 * KIB))
    cache.resume_file(digest(9)).write_bytes(b"resume")
    put(cache, 4)
    assert cache.digests() == {digest(number) for number in (1, 2, 3, 4)}
    assert not list(cache.incoming.iterdir())


def test_its_owner_hears_before_a_blob_goes(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 1, 2, 3, 4)
    gone: list[tuple[str, bool]] = []
    cache.before_eviction = lambda name: gone.append((name, cache.blob(name).exists()))
    put(cache, 5)
    assert gone == [(digest(1), True)]
