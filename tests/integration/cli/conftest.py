"""One platform, started and stopped by the command line as a person would, for all tests of this folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.process_environment import TRUST_VARIABLE
from rayline.telemetry import TRACE_FILE_VARIABLE
from runtime_env.signing import SigningKey

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "text_features"
RAYLINE = [sys.executable, "-P", "-m", "deploy.cli"]
UP_SECONDS = 240
TRACES = "traces.jsonl"
KEY_FILE = "signing-key"
TRUST_FILE = "trust"


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Answer]


def command(folder: Path) -> Run:
    """Runs `rayline …` in `folder`; `expect` is the exit code, `stdin` what it reads, `more` are variables.

    It signs by the key in `folder`, which the nodes of a platform started so trust; they are none of development.
    """

    def run(
        *arguments: str, expect: int = 0, stdin: str = "", timeout_seconds: float = 90, more: Mapping[str, str] | None = None
    ) -> Answer:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAYLINE_KAFKA_")}
        env[TRACE_FILE_VARIABLE] = str(folder / TRACES)
        env |= {TRUST_VARIABLE: str(folder / TRUST_FILE), "RAYLINE_ENV_KEY": str(folder / KEY_FILE), **(more or {})}
        done = subprocess.run(
            [*RAYLINE, *arguments],
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env=env,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's project folder, with the key that signs there."""
    made = tmp_path_factory.mktemp("project")
    key = SigningKey.generate(made / KEY_FILE)
    (made / TRUST_FILE).write_text(f"ed25519 {key.public} tests\n")
    return made


@pytest.fixture(scope="session")
def signing_key(folder: Path) -> SigningKey:
    """Whom the platform's nodes trust."""
    return SigningKey.read(folder / KEY_FILE)


@pytest.fixture(scope="session")
def command_line(folder: Path) -> Iterator[Run]:
    """`rayline` in that folder; whatever it started is down at the end."""
    run = command(folder)
    yield run
    run("down", timeout_seconds=UP_SECONDS)
    shutil.rmtree(folder / ".rayline", ignore_errors=True)


@pytest.fixture
def platform(command_line: Run, folder: Path) -> Run:
    """`rayline` where a platform of one cluster with one pod runs, with the text example deployed; a test may take it down."""
    return with_platform(command_line, folder)


def with_platform(command_line: Run, folder: Path) -> Run:
    """As `platform`, for fixtures of other scopes."""
    if not (folder / ".rayline" / "state.json").exists():
        command_line("up", "--detach", "--clusters", "1", "--pods", "1", timeout_seconds=UP_SECONDS)
        command_line("deploy", str(EXAMPLE), "--wait", timeout_seconds=UP_SECONDS)
    return command_line
