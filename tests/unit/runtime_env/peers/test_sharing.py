"""Each piece is read from the store by one node, whoever comes and goes, and by another only when that one does not."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from runtime_env.peers.sharing import RUN_PIECES, Patience, Situation, owned, pieces_to_read

PATIENCE = Patience(settle=1, lonely=2, stall=6)
ALONE = Situation([False] * 16, [0] * 16, holders=0, sources=0, joined_seconds=2, quiet_seconds=2, sourceless_seconds=2)
NAMES = st.lists(st.text("abc", min_size=1), min_size=1, max_size=6, unique=True).map(lambda names: tuple(sorted(names)))


def due(now: Situation, me: str = "a", nodes: tuple[str, ...] = ("a",)) -> list[int]:
    return pieces_to_read(now, me=me, nodes=nodes, patience=PATIENCE)


@given(NAMES, st.integers(1, 200))
def test_every_piece_has_one_owner(nodes: tuple[str, ...], pieces: int) -> None:
    shares = [owned(pieces, nodes, node) for node in nodes]
    assert sum(map(len, shares)) == pieces
    assert frozenset().union(*shares) == frozenset(range(pieces))


@given(NAMES, st.integers(1, 200))
def test_a_node_that_leaves_changes_nobody_elses_pieces(nodes: tuple[str, ...], pieces: int) -> None:
    rest = nodes[1:]
    for node in rest:
        assert owned(pieces, nodes, node) <= owned(pieces, rest, node)


def test_a_node_alone_reads_everything_run_by_run() -> None:
    assert due(ALONE) == [0, 1, 2, 3]
    assert due(replace(ALONE, here=[True] * 6 + [False] * 10)) == [6, 7, 8, 9]
    assert due(replace(ALONE, here=[True] * 16)) == []
    assert len(due(ALONE)) == RUN_PIECES


def test_who_just_joined_waits_to_hear_of_others() -> None:
    assert due(replace(ALONE, joined_seconds=0.9)) == []


def test_what_a_connected_peer_has_is_left_to_it() -> None:
    assert due(replace(ALONE, availability=[1] * 4 + [0] * 12)) == [4, 5, 6, 7]
    assert due(replace(ALONE, availability=[1] * 16)) == []


def test_a_holder_is_waited_for_and_then_left_to_give() -> None:
    known = replace(ALONE, holders=1, sourceless_seconds=1.9)
    assert due(known) == []
    assert due(replace(known, sourceless_seconds=2)) == [0, 1, 2, 3]
    connected = replace(ALONE, holders=1, sources=1)
    assert due(replace(connected, quiet_seconds=5.9)) == []
    assert due(replace(connected, quiet_seconds=6)) == [0, 1, 2, 3]


def test_what_others_own_is_read_only_when_nothing_comes() -> None:
    nodes = ("a", "b", "c")
    theirs = [piece not in owned(16, nodes, "a") for piece in range(16)]
    left = replace(ALONE, here=[not one for one in theirs])
    assert due(left, nodes=nodes) == []
    stalled = due(replace(left, quiet_seconds=6), nodes=nodes)
    assert len(stalled) == 1
    assert theirs[stalled[0]]
