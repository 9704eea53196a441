"""Who takes part among peers is who beats; what a beat says of a node is what the others hear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from rayline.errors import FormatError
from rayline.reports import NodeReport, NodeState, encode_reports
from runtime_env.peers.members import Member
from runtime_env.peers.options import PeerRates
from runtime_env.peers.throttle import Limits
from workers.peering import MISSED_BEATS, Peering

HELD, WANTED = "0123456789abcdef", "fedcba9876543210"


@dataclass
class FakePeer:
    """Remembers what it was told."""

    limits: Limits = field(default_factory=lambda: Limits(receive=7))
    members: list[tuple[Member, ...]] = field(default_factory=list)
    told_limits: list[tuple[str, int | None]] = field(default_factory=list)

    def member(self) -> Member:
        return Member("a/me", "10.0.0.1", 4711, 1, frozenset({HELD}), frozenset({WANTED}))

    def rates(self) -> PeerRates:
        return PeerRates(5.4, 3.6)

    def set_members(self, members: Iterable[Member]) -> None:
        self.members.append(tuple(members))

    def set_global_limit(self, total: int | None) -> None:
        self.told_limits.append(("total", total))

    def set_limits(self, *, download: int | None, upload: int | None) -> None:
        assert download == upload
        self.told_limits.append(("own", download))

    def close(self) -> None: ...


def beat_of(peering: Peering, node: str, **changes: object) -> bytes:
    report = NodeReport("a", node, 1, 1, NodeState.READY, beat=True, peer=peering.presence())
    return encode_reports([replace(report, **changes)])  # type: ignore[arg-type]


def test_what_a_beat_says_is_what_others_hear() -> None:
    teller, hearer = Peering(peer=FakePeer()), FakePeer()
    assert (teller.presence().receives, teller.presence().sends, teller.presence().limit) == (5, 4, 7)
    peering = Peering(peer=hearer)
    peering.hear(beat_of(teller, "me"), now=0.0)
    peering.tell(now=0.5)
    peering.tell(now=1.0)
    # Told once: nothing changed.
    assert hearer.members == [(Member("a/me", "10.0.0.1", 4711, 1, frozenset({HELD}), frozenset({WANTED})),)]


def test_who_is_silent_or_gone_or_does_not_take_part_is_no_member() -> None:
    teller, hearer = Peering(peer=FakePeer()), FakePeer()
    peering = Peering(peer=hearer)
    peering.hear(beat_of(teller, "silent"), now=0.0)
    peering.hear(beat_of(teller, "slow", interval_ms=60_000), now=0.0)
    peering.hear(beat_of(teller, "gone"), now=0.0)
    peering.hear(beat_of(teller, "gone", state=NodeState.GONE, peer=None), now=0.1)
    peering.hear(beat_of(teller, "without", peer=None), now=0.1)
    peering.tell(now=1.0)
    peering.tell(now=MISSED_BEATS + 0.1)
    assert [[member.name for member in members] for members in hearer.members] == [["a/silent", "a/slow"], ["a/slow"]]


def test_nonsense_is_an_error_that_names_it() -> None:
    with pytest.raises(FormatError):
        Peering(peer=FakePeer()).hear(b"nonsense", now=0.0)


def test_a_limit_of_nothing_is_no_limit() -> None:
    peer = FakePeer()
    peering = Peering(peer=peer)
    peering.set_total_limit(40)
    peering.set_total_limit(0)
    peering.set_own_limit(20)
    peering.set_own_limit(0)
    assert peer.told_limits == [("total", 40), ("total", None), ("own", 20), ("own", None)]
