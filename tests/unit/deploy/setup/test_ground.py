"""What a fresh clone stands on: locked packages, set-up that runs only where something changed, remedies that can be typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.setup import machine
from deploy.setup.machine import SetupFailed, java_is_missing, require_packages

ROOT = Path(__file__).resolve().parents[4]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", [path for path in LOCKS if path.name != "overrides.txt"], ids=lambda path: path.name)
def test_every_locked_package_has_its_version_and_hashes(lock: Path) -> None:
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", lock.read_text()))
    packages = [line for line in text.splitlines() if line.strip()]
    assert packages
    assert [line for line in packages if not re.match(r"[A-Za-z0-9._\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_lock_names_an_address(lock: Path) -> None:
    assert "://" not in lock.read_text()


def test_users_type_checkers_find_the_types_of_rayline() -> None:
    assert (ROOT / "rayline" / "py.typed").exists()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What set-up depends on, all of it done."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "requirements/dev.txt", "deploy/setup/machine.py", "deploy/broker/pom.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1_000, 1_000))
    for name in ("deploy/broker/jars/kafka.jar", ".venv/.ready"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def sets_up(clone: Path) -> bool:
    """Whether `make test` would begin with set-up."""
    planned = subprocess.run(["make", "-n", "test"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert "tests.run" in planned
    return "deploy.setup" in planned


def test_set_up_is_not_run_again_where_nothing_changed(clone: Path) -> None:
    assert not sets_up(clone)


@pytest.mark.parametrize(
    "changed", ["pyproject.toml", "requirements/dev.txt", "deploy/setup/machine.py", "deploy/broker/pom.xml"]
)
def test_set_up_is_run_again_where_one_of_its_inputs_changed(clone: Path, changed: str) -> None:
    later = (clone / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(clone / changed, (later, later))
    assert sets_up(clone)


def test_set_up_is_run_again_where_kafkas_jars_are_gone(clone: Path) -> None:
    (clone / "deploy" / "broker" / "jars" / "kafka.jar").unlink()
    assert sets_up(clone)


def test_without_the_right_to_install_the_exact_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_may_install", lambda: False)
    with pytest.raises(SetupFailed, match=r"to fetch Kafka.*run: sudo apt-get install -y maven$"):
        require_packages({"no-such-program": "maven"}, why="to fetch Kafka")


def test_what_is_only_useful_is_named_and_does_not_stop_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "_may_install", lambda: False)
    require_packages({"no-such-program": "kcat"}, why="for one test", needed=False)
    assert "sudo apt-get install -y kcat" in capsys.readouterr().out


@pytest.mark.parametrize(("told", "missing"), [("21.0.4", False), ("17.0.1", False), ("11.0.2", True), ("1.8.0", True)])
def test_a_java_that_kafka_cannot_use_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, missing: bool
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{told}\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_is_missing() is missing
