"""Sets of settings: the shipped ones are right, and a wrong one is refused as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.config_set import read_set, set_names
from rayline.errors import ConfigError


@pytest.mark.parametrize("name", set_names())
def test_every_shipped_set_can_be_read(name: str) -> None:
    assert read_set(name)


def test_a_set_of_ones_own_is_read_by_its_path_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("app/ocr/weights.policy: static\nglobal/batching.linger_ms: 5\nnode/a/p/cordon: true\n")
    changes = [(str(change.key), change.value) for change in read_set(str(path))]
    assert changes == [("app/ocr/weights.policy", "static"), ("global/batching.linger_ms", 5.0), ("node/a/p/cordon", True)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("global/weights.policy: fastest\n", "right would be"),
        ("global/batching.linger_ms: 5\nglobal/no.such: 1\n", "no.such"),
        ("- global/weights.policy\n", "a map"),
        ("", "a map"),
        ("a: [\n", "cannot be read"),
        ("global/weights.policy: 2026-11-21\n", "own"),
    ],
)
def test_a_set_with_anything_wrong_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_set(str(path))


def test_an_unknown_set_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="as-in-the-article"):
        read_set("as-in-the-articel")
