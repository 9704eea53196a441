"""The Kafka messages that Rayline adds to aiokafka, byte by byte, and the check of aiokafka's shape."""

from __future__ import annotations

import pickle
from io import BytesIO

import aiokafka
import pytest
from aiokafka.producer.sender import Sender

from rayline.bus import GroupMember, TopicPartition
from rayline.bus.protocol import (
    OffsetFetch,
    OffsetFetchRequestV7,
    OffsetFetchResponseV7,
    TxnOffsetCommit,
    TxnOffsetCommitRequestV3,
    TxnOffsetCommitResponseV3,
    check_client,
)
from rayline.errors import OffsetLost, UnsupportedClient

MEMBER = GroupMember("g", 7, "m", None)
VERSIONS = {28: (0, 5), 9: (0, 10)}


def test_a_txn_offset_commit_carries_generation_member_and_instance() -> None:
    request = TxnOffsetCommit(
        transactional_id="t",
        producer_id=1,
        producer_epoch=2,
        member=MEMBER,
        offsets={TopicPartition("a", 3): (5, "x")},
    ).prepare(VERSIONS)
    assert request.encode() == bytes.fromhex(
        "0274"  # transactional id
        "0267"  # group
        "0000000000000001"  # producer id
        "0002"  # producer epoch
        "00000007"  # generation
        "026d"  # member
        "00"  # no instance
        "02" "0261"  # one topic: a
        "02" "00000003" "0000000000000005" "ffffffff" "0278" "00"  # one partition, offset, no leader epoch, metadata
        "00" "00"  # no tags
    )  # fmt: skip


def test_partitions_of_one_topic_travel_together_in_order() -> None:
    offsets = {TopicPartition(topic, p): (p, "") for topic, p in [("b", 1), ("a", 2), ("b", 0)]}
    request = TxnOffsetCommit(
        transactional_id="t", producer_id=1, producer_epoch=2, member=GroupMember("g", 1, "m", "i"), offsets=offsets
    ).prepare(VERSIONS)
    decoded = TxnOffsetCommitRequestV3.decode(BytesIO(request.encode()))
    assert decoded.group_instance_id == "i"
    assert [(topic, [p[0] for p in partitions]) for topic, partitions, _ in decoded.topics] == [("a", [2]), ("b", [0, 1])]


@pytest.mark.parametrize(("require_stable", "flag"), [(True, "01"), (False, "00")])
def test_an_offset_fetch_says_whether_it_must_be_stable(require_stable: bool, flag: str) -> None:
    request = OffsetFetch("g", [TopicPartition("a", 1), TopicPartition("a", 0)], require_stable=require_stable)
    encoded = request.prepare(VERSIONS).encode()
    assert encoded == bytes.fromhex("0267" "02" "0261" "03" "00000000" "00000001" "00" + flag + "00")  # fmt: skip
    assert OffsetFetchRequestV7.decode(BytesIO(encoded)).require_stable is require_stable


def test_responses_are_read_back() -> None:
    committed = TxnOffsetCommitResponseV3(0, [("a", [(0, 22, {})], {})], {})
    assert TxnOffsetCommitResponseV3.decode(BytesIO(committed.encode())).errors == [("a", [(0, 22, {})], {})]
    fetched = OffsetFetchResponseV7(0, [("a", [(0, 5, -1, "ledger", 0, {})], {})], 0, {})
    assert OffsetFetchResponseV7.decode(BytesIO(fetched.encode())).topics == [("a", [(0, 5, -1, "ledger", 0, {})], {})]


def test_the_installed_aiokafka_has_the_shape_that_is_relied_on() -> None:
    check_client.__wrapped__()


def test_a_moved_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sender, "_do_txn_commit", lambda: None)
    with pytest.raises(UnsupportedClient, match=r"Sender\._do_txn_commit"):
        check_client.__wrapped__()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiokafka, "__version__", "0.15.0")
    with pytest.raises(UnsupportedClient, match=r"0\.15\.0"):
        check_client.__wrapped__()


def test_a_loss_survives_pickling_and_says_where() -> None:
    lost = OffsetLost(TopicPartition("a.requests", 3), 10, None)
    again = pickle.loads(pickle.dumps(lost))
    assert (again.partition, again.position, again.earliest) == (("a.requests", 3), 10, None)
    assert "a.requests/3" in str(again)
