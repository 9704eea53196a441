"""How far `rayline logs` looks back, as people write it."""

from __future__ import annotations

import pytest
import typer

from deploy.cli.options import seconds_of


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400), ("0s", 0)])
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1h", "1.5h", "1h30m", "soon", "9" * 20 + "d"])
def test_anything_else_is_a_wrong_command_line(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="10m"):
        seconds_of(text)
