"""The user code's own record, written by `deploy/chaos/app/feature.py`: which job began and ended when, in which process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Execution:
    """One call of the function (epoch milliseconds). `ended_ms` is None where the process died, or was stopped, in between."""

    job: int
    session: int
    pid: int
    began_ms: float
    ended_ms: float | None


def read_executions(folder: Path) -> list[Execution]:
    """All of a run, in the order in which they began."""
    found = [execution for path in folder.iterdir() for execution in _of_process(path)]
    return sorted(found, key=lambda execution: execution.began_ms)


def runs_now(path: Path) -> bool:
    """Whether the last line of one process's record is a beginning."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    return len(lines) > 1 and lines[-2].startswith(b"b ")


def _of_process(path: Path) -> Iterable[Execution]:
    session, pid = (int(part) for part in path.name.split("-"))
    open_jobs: dict[int, float] = {}
    for line in path.read_text().splitlines():
        what, job, moment_ns = line.split()
        number, moment_ms = int(job), int(moment_ns) / 1e6
        if what == "b":
            open_jobs[number] = moment_ms
        elif number in open_jobs:
            yield Execution(number, session, pid, open_jobs.pop(number), moment_ms)
    for number, began_ms in open_jobs.items():
        yield Execution(number, session, pid, began_ms, None)
