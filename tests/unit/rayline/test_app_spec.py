"""App specs: read back the same through JSON; anything else is refused with its cause."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayline.app_spec import AppSpec, BatchFormat, Batching, Call, Limits, Resources, Retries
from rayline.errors import FormatError

specs = st.builds(
    AppSpec,
    st.text(min_size=1),
    st.text(),
    st.text(),
    st.text(),
    st.sampled_from(BatchFormat),
    st.sampled_from(Call),
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers()), max_size=3),
    st.dictionaries(st.text(), st.text(), max_size=3),
    st.builds(Resources, st.floats(0.1, 64), st.floats(0, 8), st.integers(0, 2**40)),
    st.integers(1, 64),
    st.none() | st.integers(1, 8),
    st.builds(Batching, st.integers(1, 999), st.integers(1, 2**24), st.floats(0, 1000)),
    st.floats(0.5, 600),
    st.integers(1, 64),
    st.builds(Retries, st.integers(0, 9), st.integers(0, 99), st.integers(0, 9), st.integers(1, 9)),
    st.builds(Limits, st.floats(0.1, 600), st.floats(1, 600)),
)


@given(specs)
def test_a_spec_reads_back_the_same_through_json(spec: AppSpec) -> None:
    assert AppSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


@given(specs, st.data())
def test_a_spec_with_a_part_missing_is_refused_or_has_its_default(spec: AppSpec, data: st.DataObject) -> None:
    content: dict[str, Any] = spec.as_dict()
    name = data.draw(st.sampled_from(sorted(content)))
    del content[name]
    if name in (
        "v",
        "name",
        "version",
        "root",
        "entrypoint",
        "batch_format",
        "call",
        "resources",
        "batching",
        "retries",
        "limits",
    ):
        with pytest.raises(FormatError):
            AppSpec.from_dict(content)
    else:
        assert getattr(AppSpec.from_dict(content), name) == getattr(AppSpec("n", "v", "r", "m:f"), name)


@pytest.mark.parametrize(
    ("name", "value"), [("v", 2), ("batch_format", "xml"), ("call", 7), ("batching", {"unknown": 1}), ("limits", 3)]
)
def test_a_spec_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(FormatError):
        AppSpec.from_dict({**AppSpec("n", "v", "r", "m:f").as_dict(), name: value})
