"""What the references share: where to read and write, when to stop, and what they report on standard output."""

import json
import os
import time
from dataclasses import asdict, dataclass

import typer

from bench.processes import cpu_seconds, ray_role, spent, tree


@dataclass(frozen=True, slots=True)
class Task:
    """One run: read ``jobs`` records of a topic as a fresh consumer group, write a result for each with the job's key."""

    bootstrap_servers: str
    requests: str
    results: str
    jobs: int

    @property
    def group(self) -> str:
        return f"{self.requests}.group"


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a reference says of its own run; throughput and correctness are judged from the topics, not from here."""

    processed: int
    seconds: float
    cpu_s: dict[str, float]  # by role, from the first fetch to the last commit, without start-up


class Meter:
    """Measures the span from ``start`` to ``report`` in wall and CPU seconds of this process and its descendants."""

    def __init__(self) -> None:
        self._role = ray_role(os.getpid())
        self._started = 0.0
        self._before: dict[str, float] = {}

    def start(self) -> None:
        """Call when everything is warm and the first job has not been read."""
        self._before = cpu_seconds(tree(os.getpid()), self._role)
        self._started = time.perf_counter()

    def report(self, processed: int) -> RunReport:
        """Call before anything is shut down: processes that end take their counters with them."""
        seconds = time.perf_counter() - self._started
        after = cpu_seconds(tree(os.getpid()), self._role)
        return RunReport(processed=processed, seconds=round(seconds, 3), cpu_s=spent(self._before, after))


def say(report: RunReport) -> None:
    """The one line on standard output."""
    typer.echo(json.dumps(asdict(report)))
