"""Weights by version: what people write is read in every form or refused in words, and a name means one thing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.config import SETTINGS
from rayline.config.record import RefusedRecord, parse_key, read_change
from rayline.versions import MAX_VERSIONS, VersionWeights, names, read_version_weights

SETTING = SETTINGS["traffic.version_weights"]
KEY = parse_key("app/ocr/traffic.version_weights")
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._+-]{0,20}", fullmatch=True).filter(lambda name: name != "v")
BUILT = "1.4.0+0123456789ab"


@given(weights=st.dictionaries(NAMES, st.floats(0, 1000), max_size=8))
def test_an_object_and_the_same_as_text_are_one_value_and_come_back_as_they_went(weights: dict[str, float]) -> None:
    text = " , ".join(f"{name} = {weight!r}" for name, weight in weights.items())
    values = [json.dumps(weights), *([json.dumps(text)] if weights else [])]
    for raw in values:
        change = read_change(KEY, SETTING, raw.encode())
        assert change.value == weights
        assert read_change(KEY, SETTING, change.encode()).value == weights


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"1": -0.1}, "weight of version 1 is -0.1"),
        ({"1": 1000.5}, "weight of version 1 is 1000.5"),
        ({"1": "0.1"}, "weight of version 1 is 0.1"),
        ({"1": True}, "weight of version 1 is True"),
        ({"1": None}, "weight of version 1 is None"),
        ({"": 1}, "no version is called ''"),
        ({"a/b": 1}, "no version is called 'a/b'"),
        ({"sha256:xyz": 1}, "no version is called 'sha256:xyz'"),
        ({str(number): 1 for number in range(MAX_VERSIONS + 1)}, f"the limit is {MAX_VERSIONS}"),
        ("1=nan", "weight of version 1 is nan"),
        ("1=a", "weight of version 1 is 'a'"),
        ("1=1,1=2", "version 1 stands there twice"),
        ("1", "has no `=`"),
        ("", "has no `=`"),
        (0.1, "neither an object nor text"),
        ([["1", 1]], "neither an object nor text"),
        (None, "neither an object nor text"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong_and_what_would_be_right(value: Any, why: str) -> None:
    with pytest.raises(RefusedRecord, match="right would be an object such as") as refused:
        read_change(KEY, SETTING, json.dumps(value).encode())
    assert why in str(refused.value)
    assert len(str(refused.value)) < 600


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_whatever_stands_there_it_is_read_or_refused(value: Any) -> None:
    try:
        found = read_version_weights(value)
    except ValueError:
        return
    assert all(0 <= weight <= 1000 for weight in found.values())


@pytest.mark.parametrize(
    "name", [BUILT, "1.4.0", "0123", "0123456789ab", "sha256:0123", "sha256:0123456789ab" + "f" * 52, "0123456789ab" + "f" * 52]
)
def test_a_version_is_named_as_results_name_it_by_its_own_number_or_by_its_digest(name: str) -> None:
    assert names(name, BUILT)


@pytest.mark.parametrize("name", ["1.4", "1", "012", "0124", "1.4.0+0123", "0123456789ac" + "f" * 52, "sha256:1234"])
def test_no_other_name_means_it(name: str) -> None:
    assert not names(name, BUILT)


def test_a_version_that_is_a_hash_is_named_by_its_beginning_and_a_number_only_whole() -> None:
    assert names("3f2a", "3f2a9c01")
    assert not names("2", "24")
    assert not names("1.4.0", "1.4.0.1")


def test_of_several_names_the_most_exact_one_counts_and_what_is_not_named_has_one() -> None:
    weights = VersionWeights({"0123": 2.0, "012345": 3.0, "1.4.0": 4.0})
    assert weights.of(BUILT) == 4.0
    assert VersionWeights({"0123": 2.0, "012345": 3.0}).of(BUILT) == 3.0
    assert VersionWeights({BUILT: 5.0, "1.4.0": 4.0}).of(BUILT) == 5.0
    assert weights.of("1.3.0+ffffffffffff") == 1.0
    assert weights.unmatched(["1.3.0", BUILT]) == []
    assert weights.unmatched(["1.4.0"]) == ["0123", "012345"]
