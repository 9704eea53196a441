"""Ctrl-C for a program of ours that runs as a child process, as a person at a terminal would press it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_SECONDS = 100.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Interrupted:
    """How it ended."""

    exit_code: int
    out: str
    err: str


def interrupt(script: str, *, ready: Path, stdin: int = subprocess.DEVNULL, presses: int = 1) -> Interrupted:
    """Run Python code in a process group of its own, and press Ctrl-C as soon as the file `ready` is there: every process of the
    group gets the signal. Fails where it does not end by that."""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        try:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while not ready.exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "it does not come to where it shall be interrupted"
                time.sleep(_POLL_SECONDS)
            for _ in range(presses):
                os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=_PATIENCE_SECONDS)
        except BaseException:
            process.kill()
            raise
    return Interrupted(process.returncode, out, err)


def lives(pid_file: Path) -> bool:
    """Whether the process whose id stands there is still one."""
    status = Path(f"/proc/{pid_file.read_text()}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
