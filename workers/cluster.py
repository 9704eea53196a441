"""Ray clusters on this machine, as process groups: the head here, the pods in `workers/agent.py`. `ray stop` is never used: it
stops every cluster of the machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import tenacity

from rayline.errors import ClusterError
from workers.ports import PortBlock, claim_ports, sweep_ports
from workers.sessions import session_members, signal_session, wait_session_end

OBJECT_STORE_BYTES: Final = 80_000_000
LOG_ROTATION_BYTES: Final = 20_000_000
STOP_SECONDS: Final = 5.0
HEAD_SECONDS: Final = 90.0
HEALTH_CHECK_VARIABLE: Final = "RAY_health_check_timeout_ms"
HEALTH_CHECK_TIMEOUT_MS: Final = 20_000
NICENESS_VARIABLE: Final = "RAY_worker_niceness"
# Ray's own 15 would let a node that starts hold up all jobs of the machine.
WORKER_NICE: Final = 0
OWNER_FILE: Final = "rayline-session"
_POLL_SECONDS: Final = 0.05


def write_token(path: Path) -> str:
    """The token of a cluster, from its file; made (mode 0600) when there is none."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(fd, "w") as file:
        token = secrets.token_hex(32)
        file.write(token)
    return token


def ray_environment(token_path: Path) -> dict[str, str]:
    """The variables that every Ray process and driver of a cluster needs: own token, no usage statistics, small log files.

    Ray's health checks keep their patience, because lanes do not wait for them: a raylet that was killed is known after about
    15 s (5 checks refused, 3 s apart), one that is frozen after 115 s (5 checks of 20 s without an answer; Ray's own 65 s are too
    near to a freeze of a minute, after which the pod goes on). What Ray declares dead ends itself when it thaws, and its pod
    with it. An own value in the environment wins.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ROTATION_MAX_BYTES": str(LOG_ROTATION_BYTES),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        HEALTH_CHECK_VARIABLE: os.environ.get(HEALTH_CHECK_VARIABLE, str(HEALTH_CHECK_TIMEOUT_MS)),
        NICENESS_VARIABLE: os.environ.get(NICENESS_VARIABLE, str(WORKER_NICE)),
    }


def ray_folder(name: str) -> Path:
    """Where Ray keeps sockets and logs of one node: short, because a socket's path may have 107 characters."""
    digest = hashlib.blake2b(name.encode(), digest_size=5).hexdigest()
    return Path(tempfile.gettempdir()) / f"rayline-ray-{os.getuid()}" / digest


def make_ray_folder(folder: Path) -> None:
    """An empty folder for a node that starts now; what nodes left that were killed is removed."""
    sweep_ray_folders(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)


def remove_ray_folder(folder: Path) -> None:
    """A node has ended; the folder of all nodes goes with the last one."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def sweep_ray_folders(parent: Path | None = None) -> None:
    """Remove what nodes left that were killed: their folders below `parent` and the locks of their ports."""
    sweep_ports()
    for owner in (parent or ray_folder("").parent).glob(f"*/{OWNER_FILE}"):
        try:
            session = int(owner.read_text())
        except (FileNotFoundError, ValueError):
            continue  # another process removes it, or makes it, right now
        if not session_members(session):
            remove_ray_folder(owner.parent)


def own_ray_folder(folder: Path, session: int) -> None:
    """Note the session whose end makes the folder rubbish."""
    (folder / OWNER_FILE).write_text(str(session))


def node_command(*options: str) -> list[str]:
    """`ray start` for one node as a child of this process."""
    return [
        sys.executable,
        "-m",
        "workers.ray_node",
        str(os.getpid()),
        "start",
        "--block",
        "--disable-usage-stats",
        "--include-log-monitor=false",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--log-color=false",
        *options,
    ]


def wait_for_head(address: str, timeout_seconds: float = HEAD_SECONDS) -> None:
    """Until something listens at `host:port`: pods and gateway start beside their head. Without one, Ray says in the end what is
    wrong."""
    host, _, port = address.rpartition(":")
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(OSError),
        wait=tenacity.wait_fixed(_POLL_SECONDS),
        stop=tenacity.stop_after_delay(timeout_seconds),
        retry_error_callback=lambda _: None,
    )
    patiently(lambda: socket.create_connection((host, int(port)), timeout=1).close())


class LocalHead:
    """Owns a Ray head's processes, ports and folder. Does not own the token file, nor the pods that join.

    Life cycle: `start`, `wait_ready`, then `stop` (or `kill`, as a crash would). Ends with the process that started it.
    """

    def __init__(self, *, cluster: str, token_path: Path, log_path: Path, identity: str | None = None) -> None:
        """`identity` tells two heads of one cluster name on one machine apart (say, the launcher's folder)."""
        self._cluster = cluster
        self._token_path = token_path
        self._log_path = log_path
        self._folder = ray_folder(f"{identity or token_path.resolve()}/{cluster}/head")
        self._ports: PortBlock | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port` for `ray start --address` and `ray.init`."""
        if self._ports is None:
            raise ClusterError(f"the head of {self._cluster} was not started")
        return f"{self._ports.host}:{self._ports.first}"

    @property
    def pid(self) -> int:
        """The head's process, which leads its session."""
        if self._process is None:
            raise ClusterError(f"the head of {self._cluster} was not started")
        return self._process.pid

    def start(self) -> None:
        """Start the processes; returns before the head answers."""
        make_ray_folder(self._folder)
        write_token(self._token_path)
        self._ports = ports = claim_ports(f"{self._folder}")
        command = node_command(
            "--head",
            "--no-monitor",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--dashboard-port={ports.first + 7}",
            f"--node-ip-address={ports.host}",
            f"--port={ports.first}",
            f"--temp-dir={self._folder}",
            *ports.ray_options(),
        )
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **ray_environment(self._token_path), "DASHBOARD_METRIC_PORT": str(ports.first + 8)},
                start_new_session=True,
            )
        own_ray_folder(self._folder, self._process.pid)

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Whether the head accepts connections now."""
        host, _, port = self.address.partition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return (self._folder / "ray_current_cluster").exists()
        except OSError:
            return False

    def wait_ready(self, timeout_seconds: float = 60.0) -> None:
        """Block until the head answers; raises ClusterError with its last words when it ended, or when the time is up."""
        until = time.monotonic() + timeout_seconds
        while not self.is_ready():
            if not self.is_alive() or time.monotonic() > until:
                state = "did not answer in time" if self.is_alive() else "ended"
                tail = self._log_path.read_text(errors="replace")[-2000:]
                raise ClusterError(f"the head of {self._cluster} {state}; {self._log_path} ends with:\n{tail}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End it in order: SIGTERM, then SIGKILL for what is left; its folder is removed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            wait_session_end(self._process.pid, timeout_seconds=STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            signal_session(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._ports is not None:
            self._ports.release()
            self._ports = None
        remove_ray_folder(self._folder)
