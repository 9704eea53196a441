"""Whatever actors of a node prepare and call, and in whatever order: no call takes an older generation than one before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.app_versions import AppVersions, Served
from workers.loading import LoadedApp


def served(generation: int) -> Served:
    return Served(LoadedApp(lambda payload: payload, False, None), generation, f"{generation}:m@1")


class Node:
    """Actors that share one turn, as its actors do."""

    def __init__(self, first: list[int]) -> None:
        self.turn = [0]
        self.actors = [AppVersions(served=served(generation), turn=self.turn, advance=self.advance) for generation in first]

    def advance(self, generation: int) -> None:
        self.turn[0] = max(self.turn[0], generation)

    def advance_together(self, generation: int) -> None:
        if all(actor.prepared == generation for actor in self.actors):
            self.advance(generation)


STEPS = st.lists(st.tuples(st.sampled_from(["take", "prepare", "together"]), st.integers(0, 2), st.integers(0, 5)), max_size=40)


@given(first=st.lists(st.integers(0, 3), min_size=3, max_size=3), steps=STEPS)
def test_generations_that_calls_take_on_a_node_never_fall(first: list[int], steps: list[tuple[str, int, int]]) -> None:
    node = Node(first)
    taken = 0
    for what, who, generation in steps:
        actor = node.actors[who]
        if what == "prepare":
            actor.prepare(served(generation))
        elif what == "together":
            node.advance_together(generation)
        elif (found := actor.take()) is not None:
            assert found.generation >= taken
            taken = found.generation


def test_a_prepared_successor_serves_only_from_the_turn_on() -> None:
    node = Node([1, 1])
    node.advance(1)
    for actor in node.actors:
        actor.prepare(served(2))
        assert actor.take() == actor.served
        assert actor.served.generation == 1
    node.advance_together(2)
    assert [found.generation for actor in node.actors if (found := actor.take())] == [2, 2]


def test_who_is_left_behind_takes_no_call_until_it_is_prepared() -> None:
    node = Node([1, 2])
    newer = node.actors[1].take()
    assert newer is not None
    assert newer.generation == 2
    assert node.actors[0].take() is None
    node.actors[0].prepare(served(2))
    assert node.actors[0].take() is not None


def test_a_successor_whose_turn_has_come_is_not_lost_when_a_newer_one_is_prepared_before_any_call() -> None:
    node = Node([1])
    node.advance(1)
    node.actors[0].prepare(served(2))
    node.advance(2)
    node.actors[0].prepare(served(3))
    taken = node.actors[0].take()
    assert taken is not None
    assert taken.generation == 2


def test_of_two_successors_the_newer_one_is_taken_where_the_turn_skipped_the_older() -> None:
    node = Node([1])
    node.advance(1)
    node.actors[0].prepare(served(2))
    node.actors[0].prepare(served(3))
    node.advance(2)
    assert node.actors[0].take() is None
    node.advance(3)
    assert node.actors[0].take() is not None
