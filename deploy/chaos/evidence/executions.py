"""The user code's own record, written by `deploy/chaos/app/feature.py`: which job began and ended when, in which process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


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
