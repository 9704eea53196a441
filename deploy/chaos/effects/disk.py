"""A pod that cannot write: a small, full tmpfs over the folder of its log files."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.chaos.effects.base import Unavailable
from workers.cluster import OWNER_FILE, ray_folder

_BYTES = 64 * 1024


@asynccontextmanager
async def disk_full(session: int) -> AsyncIterator[str]:
    """While it is open, the pod of that session can make no file where its logs go; open files are written to as before."""
    folder = _log_folder(session)
    _run("mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "rayline-chaos", str(folder))
    try:
        _fill(folder / "full")
        yield f"a full tmpfs over {folder}"
    finally:
        _run("umount", "--lazy", str(folder))


def _log_folder(session: int) -> Path:
    for owner in ray_folder("").parent.glob(f"*/{OWNER_FILE}"):
        if owner.read_text().strip() == str(session):
            return (owner.parent / "session_latest" / "logs").resolve(strict=True)
    raise Unavailable(f"no folder of session {session} below {ray_folder('').parent}")


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return  # that is the point: no byte is left


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")
