"""Records of `rayline.clusters`: written and read back the same, the last word counts, an order of a past epoch does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.clusters import (
    ActualCluster,
    ClusterBook,
    ClusterOrder,
    DesiredCluster,
    Entry,
    ExecutorIdentity,
    Lease,
    desired_key,
    encode_entry,
)
from rayline.errors import FormatError

entries = st.one_of(
    st.builds(Lease),
    st.builds(ExecutorIdentity),
    st.builds(DesiredCluster),
    st.builds(ClusterOrder),
    st.builds(ActualCluster),
)


def read_back(entry: Entry) -> Entry | None:
    book = ClusterBook()
    book.apply(*encode_entry(entry))
    if isinstance(entry, Lease):
        return book.lease
    if isinstance(entry, ExecutorIdentity):
        return ExecutorIdentity(book.executor or "")
    tables = {DesiredCluster: book.desired, ClusterOrder: book.orders, ActualCluster: book.actual}
    return tables[type(entry)].get(entry.cluster)  # type: ignore[attr-defined, no-any-return]


@given(entries)
def test_what_is_written_is_read_back_the_same(entry: Entry) -> None:
    if isinstance(entry, Lease) and entry.epoch < 1:
        assert read_back(entry) is None, "epochs begin with one"
    elif isinstance(entry, ClusterOrder) and entry.epoch < 0:
        assert read_back(entry) is None
    else:
        assert read_back(entry) == entry


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"", b"{}"),
        (b"unknown/c1", b'{"v": 1}'),
        (b"keeper", b"no json"),
        (b"keeper", b"[]"),
        (b"keeper", b'{"v": 2, "epoch": 1, "holder": "x"}'),
        (b"keeper", b'{"v": 1, "epoch": "many", "holder": "x"}'),
        (b"order/c1", b'{"v": 1, "cluster": "c1", "epoch": 1, "slots": 5}'),
        (b"actual/c1", b'{"v": 1, "cluster": "c1"}'),
    ],
)
def test_what_is_no_record_is_refused_and_changes_nothing(key: bytes | None, value: bytes) -> None:
    book = ClusterBook()
    with pytest.raises(FormatError):
        book.apply(key, value)
    assert (book.lease, book.executor, book.desired, book.orders, book.actual) == (None, None, {}, {}, {})


def test_a_tombstone_takes_a_cluster_away_once() -> None:
    book = ClusterBook()
    book.take(DesiredCluster("c1", 1))
    assert book.apply(desired_key("c1"), None)
    assert not book.apply(desired_key("c1"), None)
    assert book.desired == {}


def test_neither_an_older_epoch_nor_an_older_revision_counts() -> None:
    book = ClusterBook()
    book.take(Lease(2, "new"))
    assert not book.take(ClusterOrder("c1", epoch=1, revision=9))
    assert book.take(ClusterOrder("c1", epoch=2, revision=2))
    assert not book.take(ClusterOrder("c1", epoch=2, revision=1))
    assert book.orders["c1"].revision == 2
