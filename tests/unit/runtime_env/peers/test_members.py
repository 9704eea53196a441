"""Who takes part is who was heard of lately."""

from __future__ import annotations

from dataclasses import replace

from runtime_env.peers.members import Member, Roster

MEMBER = Member("cluster/pod", "10.0.0.7", 4711, 5, frozenset({"0123456789abcdef"}), frozenset({"fedcba9876543210"}))


def test_the_silent_the_gone_and_the_former_are_not_alive() -> None:
    roster = Roster()
    other = replace(MEMBER, name="cluster/other")
    roster.hear(MEMBER, now=0, silence_seconds=30)
    roster.hear(other, now=20, silence_seconds=30)
    assert roster.alive(29) == (other, MEMBER)
    assert roster.alive(31) == (other,)
    newer = replace(other, incarnation=6, port=1)
    roster.hear(newer, now=32, silence_seconds=30)
    roster.hear(other, now=33, silence_seconds=30)
    assert roster.alive(34) == (newer,)
    roster.remove(other.name)
    assert roster.alive(34) == ()


def test_who_speaks_seldom_may_be_silent_for_longer() -> None:
    roster = Roster()
    roster.hear(MEMBER, now=0, silence_seconds=240)
    assert roster.alive(200) == (MEMBER,)
