"""What a build tells on its way, and which Pythons a building machine lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import environment_doctor
from deploy.cli import bars
from deploy.doctor import Health
from runtime_env.build.builder import Progress
from runtime_env.build.interpreters import SUPPORTED, Interpreter
from runtime_env.transfer import Transfer


def test_each_step_of_a_build_is_a_line_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(bars, "note", told.append)
    monkeypatch.setenv("TERM", "dumb")
    with bars.build_bar() as progress:
        progress(Progress(0, 1, "resolving requirements"))
        progress(Progress(2, 7, "numpy-2.1"))
    assert told == ["[0/1] resolving requirements", "[2/7] numpy-2.1"]


def test_what_is_read_packed_and_stored_is_a_line_each_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(bars, "note", told.append)
    monkeypatch.setenv("TERM", "dumb")
    with bars.bytes_bar() as progress:
        for what in ("packing detector", "storing detector"):
            for done in (0, 5, 10):
                progress(Transfer(what, done, 10))
    assert told == ["packing detector", "storing detector"]


def test_on_a_terminal_bytes_are_a_bar_that_begins_anew_with_each_thing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with bars.bytes_bar() as progress:
        progress(Transfer("reading detector", 5, None))
        progress(Transfer("storing detector", 10, 10))
    shown = capsys.readouterr().err
    assert "storing detector" in shown
    assert "10/10 bytes" in shown


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
