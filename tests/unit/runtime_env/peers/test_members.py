"""Who takes part is who was heard of lately; notices from outside are checked."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from rayline.errors import FormatError
from runtime_env.peers.members import Member, Roster, seen_from

MEMBER = Member("cluster/pod", "10.0.0.7", 4711, 5, frozenset({"0123456789abcdef"}), frozenset({"fedcba9876543210"}))


def test_a_notice_survives_the_wire() -> None:
    assert Member.from_bytes(MEMBER.to_bytes()) == MEMBER


@pytest.mark.parametrize(
    "items",
    [
        [2, "a", "10.0.0.1", 1, 1, [], []],
        [1, "a", "example.com", 1, 1, [], []],
        [1, "a", "10.0.0.1", 0, 1, [], []],
        [1, "a", "10.0.0.1", 70000, 1, [], []],
        [1, 5, "10.0.0.1", 1, 1, [], []],
        [1, "a", "10.0.0.1", 1, 1, ["short"], []],
        [1, "a", "10.0.0.1", 1, 1, {}, []],
        [1, "a"],
        "text",
    ],
)
def test_nonsense_is_refused(items: object) -> None:
    with pytest.raises(FormatError):
        Member.from_bytes(msgpack.packb(items))


def test_the_silent_the_gone_and_the_former_are_not_alive() -> None:
    roster = Roster(silence_seconds=30)
    other = replace(MEMBER, name="cluster/other")
    roster.hear(MEMBER, now=0)
    roster.hear(other, now=20)
    assert roster.alive(29) == (other, MEMBER)
    assert roster.alive(31) == (other,)
    newer = replace(other, incarnation=6, port=1)
    roster.hear(newer, now=32)
    roster.hear(other, now=33)
    assert roster.alive(34) == (newer,)
    roster.remove(other.name)
    assert roster.alive(34) == ()


def test_a_translated_address_replaces_the_told_one() -> None:
    (seen,) = seen_from([MEMBER], {MEMBER.name: ("192.0.2.4", 9)})
    assert (seen.host, seen.port, seen.holds) == ("192.0.2.4", 9, MEMBER.holds)
    assert seen_from([MEMBER], {}) == (MEMBER,)
