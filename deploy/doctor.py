"""The checks behind `rayline doctor`: each looks at one thing and says what to do when it is not in order."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil

from deploy.broker.container import engine_answers
from deploy.broker.java import find_jars, find_java
from deploy.local.state import StateFolder
from rayline.bus import KafkaSettings, check_reachable
from rayline.errors import LaunchError, RaylineError

MIN_PYTHON: Final = (3, 11)
MIN_JAVA: Final = 17
MIN_MEMORY_BYTES: Final = 4 * 2**30
MIN_DISK_BYTES: Final = 2 * 2**30
MIN_OPEN_FILES: Final = 4096
_COMMAND_SECONDS: Final = 10.0
_BROKER_SECONDS: Final = 5.0


class Health(StrEnum):
    """GOOD: nothing to do. FAIR: works, with less than there could be. BAD: something will not work."""

    GOOD = "good"
    FAIR = "fair"
    BAD = "bad"


_MARKS: Final = {Health.GOOD: "✓", Health.FAIR: "!", Health.BAD: "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination; `remedy` is empty when there is nothing to do."""

    subject: str
    health: Health
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {"subject": self.subject, "health": self.health.value, "found": self.found, "remedy": self.remedy}

    def text(self) -> str:
        remedy = f"\n{'':14}→ {self.remedy}" if self.remedy else ""
        return f"{_MARKS[self.health]} {self.subject:<11} {self.found}{remedy}"


async def examine(state_dir: Path, kafka: KafkaSettings | None) -> list[Finding]:
    """All findings, in the order in which a person would mend them."""
    folder = StateFolder(state_dir)
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _java,
        _jars,
        _docker,
        _memory,
        lambda: _disk(folder.path),
        _open_files,
    ]
    findings = list(await asyncio.gather(*(asyncio.to_thread(check) for check in checks)))
    findings.append(await asyncio.to_thread(_platform, folder))
    findings.append(await _broker(folder, kafka))
    return findings


def _python() -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < MIN_PYTHON:
        return Finding("Python", Health.BAD, found, f"use Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or later")
    return Finding("Python", Health.GOOD, found)


def _packages() -> Finding:
    found: list[str] = []
    for package in ("ray", "aiokafka", "pyarrow"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            return Finding("packages", Health.BAD, f"{package} is not installed", "run `make setup`, or install Rayline again")
    return Finding("packages", Health.GOOD, ", ".join(found))


def _java() -> Finding:
    try:
        java = find_java(os.environ)
        banner = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True).stderr
    except LaunchError as error:
        return _no_local_broker("Java", "none found", error)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("Java", Health.BAD, f"does not run: {error}", "install another: `pip install 'rayline[java]'`")
    first = banner.splitlines()[0] if banner else "no version told"
    release = re.search(r'"(\d+)', first)
    if release is None or int(release[1]) < MIN_JAVA:
        return Finding(
            "Java", Health.BAD, f"{first} at {java}", f"Kafka 4 needs Java {MIN_JAVA} or later: let JAVA_HOME name one"
        )
    return Finding("Java", Health.GOOD, f"{first} at {java}")


def _jars() -> Finding:
    try:
        folder = find_jars(os.environ)
    except LaunchError as error:
        return _no_local_broker("Kafka jars", "not here", error)
    return Finding("Kafka jars", Health.GOOD, f"{len(list(folder.glob('*.jar')))} in {folder}")


def _no_local_broker(subject: str, found: str, error: LaunchError) -> Finding:
    """Without Java or jars the broker runs in a container, where there is an engine for it."""
    if engine_answers():
        return Finding(subject, Health.FAIR, f"{found}; the broker will run in a container", str(error))
    return Finding(subject, Health.BAD, found, f"{error}; not needed with --bootstrap-servers")


def _docker() -> Finding:
    command = shutil.which("docker")
    if command is None:
        return Finding("Docker", Health.GOOD, "not here; only needed where Java is not")
    try:
        ran = subprocess.run(
            [command, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("Docker", Health.GOOD, "its engine does not answer; only needed where Java is not")
    if ran.returncode:
        return Finding("Docker", Health.GOOD, "no engine answers; only needed where Java is not")
    return Finding("Docker", Health.GOOD, f"engine {ran.stdout.strip()}")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    found = f"{free / 2**30:.1f} GiB available"
    if free < MIN_MEMORY_BYTES:
        return Finding(
            "memory", Health.FAIR, found, "a broker and two clusters take about 3 GiB: start with `--clusters 1 --pods 1`"
        )
    return Finding("memory", Health.GOOD, found)


def _disk(folder: Path) -> Finding:
    """Room where the state folder is, or will be."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free at {place}"
    if free < MIN_DISK_BYTES:
        return Finding("disk", Health.BAD, found, "make room, or put the state folder elsewhere with --state-dir")
    return Finding("disk", Health.GOOD, found)


def _open_files() -> Finding:
    soft, hard = psutil.Process().rlimit(psutil.RLIMIT_NOFILE)
    if soft < MIN_OPEN_FILES:
        return Finding("open files", Health.FAIR, f"limit {soft}", f"raise it for Ray: `ulimit -n {min(65536, hard)}`")
    return Finding("open files", Health.GOOD, f"limit {soft}")


def _platform(folder: StateFolder) -> Finding:
    try:
        state = folder.read()
    except LaunchError as error:
        return Finding("platform", Health.BAD, str(error), "see the line above")
    if state is None:
        return Finding("platform", Health.GOOD, f"none runs in {folder.path}")
    if state.launcher.process() is not None:
        return Finding("platform", Health.GOOD, f"runs, launcher {state.launcher.pid}, {len(state.processes)} processes")
    left = [record.name for record in state.processes if record.process() is not None]
    found = f"its launcher was killed; it left {', '.join(left) if left else 'its records'}"
    return Finding("platform", Health.BAD, found, "`rayline down` ends what is left, the next `rayline up` does, too")


async def _broker(folder: StateFolder, kafka: KafkaSettings | None) -> Finding:
    try:
        env = folder.read_kafka()
        settings = kafka or (KafkaSettings.from_env(env) if env else None)
    except RaylineError as error:
        return Finding("broker", Health.BAD, str(error), "or name a broker with --bootstrap-servers")
    if settings is None:
        return Finding("broker", Health.GOOD, "none named and none runs here; `rayline up` starts one")
    try:
        brokers = await check_reachable(settings, timeout_seconds=_BROKER_SECONDS)
    except RaylineError as error:
        return Finding("broker", Health.BAD, str(error), "start it, or correct the address")
    return Finding("broker", Health.GOOD, f"{brokers} at {settings.bootstrap_servers}")
