"""Blocks of ports (and a loopback address) for Ray's processes, so that several nodes and clusters share one machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rayline.errors import ClusterError

FIRST_PORT: Final = 12_000  # below the kernel's ephemeral range
BLOCK_PORTS: Final = 64
BLOCKS: Final = 312
FIXED_PORTS: Final = 10


@dataclass(frozen=True, slots=True)
class PortBlock:
    """Ports `first` to `first + 63`, held by a file lock as long as this process lives or until `release`."""

    number: int
    lock_fd: int = field(repr=False)

    @property
    def first(self) -> int:
        return FIRST_PORT + self.number * BLOCK_PORTS

    @property
    def host(self) -> str:
        """A loopback address of its own: Ray tells nodes of one machine apart by address."""
        return f"127.77.{self.number // 250}.{self.number % 250 + 1}"

    @property
    def worker_ports(self) -> tuple[int, int]:
        """First and last port for workers and drivers."""
        return self.first + FIXED_PORTS, self.first + BLOCK_PORTS - 1

    def ray_options(self) -> list[str]:
        """The port options of `ray start` for any node."""
        names = (
            "node-manager-port",
            "object-manager-port",
            "dashboard-agent-listen-port",
            "dashboard-agent-grpc-port",
            "runtime-env-agent-port",
            "metrics-export-port",
        )
        options = [f"--{name}={self.first + offset}" for offset, name in enumerate(names, start=1)]
        low, high = self.worker_ports
        return [*options, f"--min-worker-port={low}", f"--max-worker-port={high}"]

    def release(self) -> None:
        """Give the block back; the lock's file goes, and its folder with the last one."""
        path = _lock_folder() / str(self.number)
        path.unlink(missing_ok=True)
        os.close(self.lock_fd)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def claim_ports(name: str) -> PortBlock:
    """A block whose ports are all free now; `name` decides where the search starts. Raises ClusterError when there is none."""
    start = zlib.crc32(name.encode())
    for step in range(BLOCKS):
        number = (start + step) % BLOCKS
        lock_fd = _lock(number)
        if lock_fd is None:
            continue
        block = PortBlock(number=number, lock_fd=lock_fd)
        if all(_is_free(port) for port in range(block.first, block.first + BLOCK_PORTS)):
            return block
        block.release()
    raise ClusterError(f"no {BLOCK_PORTS} free ports in a row from {FIRST_PORT} on: stop other clusters on this machine")


def sweep_ports() -> None:
    """Remove the locks of blocks that nobody holds any more."""
    for path in _lock_folder().glob("*"):
        lock_fd = _lock(int(path.name))
        if lock_fd is not None:
            PortBlock(number=int(path.name), lock_fd=lock_fd).release()


def _lock_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"rayline-ports-{os.getuid()}"


def _lock(number: int) -> int | None:
    """The locked file of a block, or None when another process holds it, or takes it away at this moment."""
    path = _lock_folder() / str(number)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have removed the file between our opening and our locking it.
        if os.fstat(lock_fd).st_nlink:
            return lock_fd
    except BlockingIOError:
        pass
    os.close(lock_fd)
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
