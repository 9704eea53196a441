"""What a beat says of a node's part among peers comes back as it was; nonsense is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from rayline.errors import FormatError
from rayline.reports import MAX_PEER_TAGS, NodeReport, NodeState, PeerPresence, decode_reports, encode_reports

PEER = PeerPresence("10.0.0.7", 4711, ("0123456789abcdef", "1123456789abcdef"), ("fedcba9876543210",))
BEAT = NodeReport("a", "pod", 1, 2, NodeState.READY, beat=True, peer=PEER)


def test_a_presence_survives_the_wire_and_costs_eight_bytes_a_tag() -> None:
    assert decode_reports(encode_reports([BEAT])) == [BEAT]
    assert decode_reports(encode_reports([replace(BEAT, peer=None)]))[0].peer is None
    many = replace(PEER, holds=tuple(f"{number:016x}" for number in range(1002)))
    added = len(encode_reports([replace(BEAT, peer=many)])) - len(encode_reports([BEAT]))
    assert added <= 8 * 1000 + 4


def test_more_tags_than_a_beat_may_carry_are_left_out() -> None:
    many = replace(PEER, holds=tuple(f"{number:016x}" for number in range(MAX_PEER_TAGS + 10)))
    (read,) = decode_reports(encode_reports([replace(BEAT, peer=many)]))
    assert read.peer is not None
    assert read.peer.holds == many.holds[:MAX_PEER_TAGS]


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "example.com"},
        {"port": 0},
        {"port": 70_000},
        {"holds": b"short"},
        {"holds": ["0123456789abcdef"]},
        {"wants": bytes(8 * MAX_PEER_TAGS + 8)},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    record = msgpack.unpackb(encode_reports([BEAT]))
    record["nodes"][0]["peer"] |= wrong
    with pytest.raises(FormatError):
        decode_reports(msgpack.packb(record))
