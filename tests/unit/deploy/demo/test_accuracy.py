"""Edit distance and accuracy, against what can be counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.accuracy import character_accuracy, edit_distance

TEXT = st.text(alphabet="abc ", max_size=12)


@pytest.mark.parametrize(
    ("left", "right", "distance"), [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("a b", "ab", 1)]
)
def test_known_distances(left: str, right: str, distance: int) -> None:
    assert edit_distance(left, right) == distance


@given(TEXT, TEXT, TEXT)
def test_it_is_a_metric(a: str, b: str, c: str) -> None:
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, b) == edit_distance(b, a)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def test_accuracy_weighs_pages_by_their_characters_and_counts_lost_spaces() -> None:
    assert character_accuracy([("a" * 90, "a" * 90), ("b" * 10, "")]) == pytest.approx(0.9)
    assert character_accuracy([("one two", "onetwo")]) == pytest.approx(6 / 7)
    assert character_accuracy([("a", "nonsense")]) == 0.0
    assert character_accuracy([]) == 1.0
