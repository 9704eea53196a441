"""A program in a process of its own, by the interpreter of an unpacked environment, on behalf of a health check."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayline.errors import HealthCheckFailed
from runtime_env.bundle import Bundle
from runtime_env.process_environment import python_of


def run_throwaway(
    root: Path,
    bundle: Bundle,
    program: str,
    wanted: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    where: str,
    late: str,
    read_output: bool = False,
) -> subprocess.CompletedProcess[str]:
    """The end of `program` (Python), which gets `wanted` as JSON in its first argument. What it prints is kept only to be read.

    Raises HealthCheckFailed where its Python does not start, or is not done in time: `late` is what did not happen then.
    """
    try:
        return subprocess.run(
            [python_of(root), "-c", program, json.dumps(wanted)],
            # Without -P (new in Python 3.11) the working folder is the first to be looked in until the program takes it off.
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if read_output else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=bundle.startup_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HealthCheckFailed(f"{where}{late} in limits.startup_seconds = {bundle.startup_seconds:g}") from error
    except OSError as error:
        raise HealthCheckFailed(f"{where}: its Python does not start: {error}; was the bundle made for this machine?") from error
