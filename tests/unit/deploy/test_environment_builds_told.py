"""What a build tells on its way, and which Pythons a building machine lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import environment_doctor
from deploy.cli import env
from deploy.doctor import Health
from runtime_env.build.builder import Progress
from runtime_env.build.interpreters import SUPPORTED, Interpreter


def test_each_step_of_a_build_is_a_line_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(env, "note", told.append)
    monkeypatch.setenv("TERM", "dumb")
    with env._progress() as progress:
        progress(Progress(0, 1, "resolving requirements"))
        progress(Progress(2, 7, "numpy-2.1"))
    assert told == ["[0/1] resolving requirements", "[2/7] numpy-2.1"]


def test_the_doctor_says_which_pythons_are_missing_and_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = Interpreter(tmp_path / "bin" / "python3.12", "3.12.4", tmp_path, "uv")
    monkeypatch.setattr(environment_doctor, "find_interpreters", lambda: [here])
    found = {one.subject: one for one in environment_doctor._interpreters()}
    assert list(found) == [f"Python {minor}" for minor in SUPPORTED]
    assert "3.12.4 (uv)" in found["Python 3.12"].text()
    for minor in ("3.10", "3.11", "3.13"):
        missing = found[f"Python {minor}"]
        assert missing.health is Health.FAIR, "only an app that asks for it needs it"
        assert f"uv python install {minor}" in missing.text()
