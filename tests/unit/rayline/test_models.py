"""What is said of models between operator, agent, actor and result: read back as written, anything else refused."""

from __future__ import annotations

from typing import Any

import pytest

from rayline.errors import FormatError
from rayline.models import (
    BUNDLED,
    ModelChoice,
    NodeModels,
    PlacedModel,
    PlacedModels,
    choices_value,
    generation_of,
    model_variable,
    read_choices,
)

DIGEST = "sha256:" + "a" * 64


def test_choices_are_read_back_as_written() -> None:
    choices = {"detector": ModelChoice(3, DIGEST), "tables": ModelChoice(1, DIGEST)}
    assert read_choices(choices_value(choices)) == choices
    assert read_choices({}) == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "a map"),
        ([], "a map"),
        ({"A B": {"publication": 1, "digest": DIGEST}}, "'A B'"),
        ({"../x": {"publication": 1, "digest": DIGEST}}, "name"),
        ({"a": 3}, "needs `publication` and `digest`"),
        ({"a": {"publication": 0, "digest": DIGEST}}, "publication 0"),
        ({"a": {"publication": True, "digest": DIGEST}}, "publication True"),
        ({"a": {"publication": 1, "digest": "sha256:x"}}, "64 hexadecimal"),
        ({"a": {"publication": 1, "digest": DIGEST, "more": 1}}, "needs"),
        ({f"m{number}": {"publication": 1, "digest": DIGEST} for number in range(101)}, "at most 100"),
    ],
)
def test_anything_else_is_no_choice_of_models(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("`", ".")):
        read_choices(value)


def test_a_result_names_the_generation_and_each_publication() -> None:
    placed = PlacedModels(17, {"tables": PlacedModel("/t", 2), "detector": PlacedModel("/d", 5)})
    assert placed.label == "17:detector@5,tables@2"
    assert generation_of(placed.label) == 17
    assert PlacedModels(18, {}).label == "18:bundle"
    assert BUNDLED.label is None
    assert [generation_of(text) for text in (None, "", "m7", "v2:x", "²:x")] == [0, 0, 0, 0, 0]


def test_what_an_agent_writes_is_what_an_actor_reads() -> None:
    placed = (PlacedModels(3, {}), PlacedModels(4, {"detector": PlacedModel("/d", 5)}))
    models = NodeModels(6, placed, "the store does not answer")
    assert NodeModels.decode(models.encode()) == models
    assert models.newest == placed[1]
    assert (models.of(3), models.of(5), models.of(0)) == (placed[0], None, BUNDLED)


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b'{"v": 2}', b'{"v": 1, "wanted": 1, "placed": [3], "problem": null}'])
def test_anything_else_is_not_of_an_agent(data: bytes) -> None:
    with pytest.raises(FormatError):
        NodeModels.decode(data)


def test_names_become_variables() -> None:
    assert model_variable("text-detector_2") == "RAYLINE_MODEL_TEXT_DETECTOR_2"
