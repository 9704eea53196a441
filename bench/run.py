"""``rayline bench``: Rayline and what a user would write instead, on one broker, in one run, interleaved.

Each contestant gets the same heap of jobs in topics of its own; throughput is taken from the broker's times of the first and
the last committed result, correctness from reading everything back. Medians of ``--repeat`` rounds, with the spread.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from bench.bars import judge_bars
from bench.contestants import Contestant, Heap, Rayline, references
from bench.latency import OpenLoop, measure_open_loop
from bench.load import LoadError, calibrate_loops, create_topics, delete_topics, preload
from bench.processes import cpu_seconds, spent
from bench.table import print_outcome
from deploy.broker import LocalKafka
from deploy.checker import check
from deploy.cli.output import note
from deploy.interruption import INTERRUPTED_EXIT_CODE, interruptible
from rayline.topics import requests_topic

JOBS = {"echo": 300_000, "cpu": 10_000, "io": 150_000}
QUICK_JOBS = {"echo": 60_000, "cpu": 3_000, "io": 40_000}
OPEN_LOOP_RATE_PER_S = 10_000.0
_NO_SLA_SECONDS = 3_600.0


class Reporter(Protocol):
    """Where progress goes, line by line."""

    def __call__(self, text: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Round:
    """One contestant, one heap."""

    jobs_per_s: float
    lost: int
    duplicated: int
    wrong: int  # unknown, mismatched or altered results
    cpu_s_per_1000: dict[str, float]


Rounds = dict[tuple[str, str], list[Round]]  # (contestant, workload)


class Bench:
    """Owns the order of rounds. Does not own the broker, nor `rounds`, to which it adds what they give."""

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        broker_pid: int | None,
        jobs: dict[str, int],
        cpu_loops: int,
        rounds: Rounds,
        say: Reporter,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._broker_pid = broker_pid
        self._jobs = jobs
        self._cpu_loops = cpu_loops
        self._say = say
        self._rounds = rounds

    def run_rounds(self, contestants: dict[str, Sequence[Contestant]], *, repeat: int) -> None:
        """Each workload's contestants one after the other, and that ``repeat`` times over."""
        for turn in range(1, repeat + 1):
            for workload, rivals in contestants.items():
                for contestant in rivals:
                    done = self._round(contestant, workload)
                    self._rounds.setdefault((contestant.name, workload), []).append(done)
                    self._say(f"round {turn}/{repeat}  {workload:<5} {contestant.name:<28} {done.jobs_per_s:>10,.0f} jobs/s")

    def open_loop(self, rayline: Rayline, *, seconds: float) -> OpenLoop:
        """Latency of echo at a fixed rate, after a warm-up."""
        heap = self._heap("echo", jobs=5_000)
        create_topics(self._bootstrap_servers, heap.app)
        preload(self._bootstrap_servers, requests_topic(heap.app), heap.jobs)
        with rayline.running(heap):
            rayline.wait_until_done(heap)
            seen = measure_open_loop(self._bootstrap_servers, heap.app, rate_per_s=OPEN_LOOP_RATE_PER_S, seconds=seconds)
        delete_topics(self._bootstrap_servers, heap.app)
        return seen

    def _round(self, contestant: Contestant, workload: str) -> Round:
        heap = self._heap(workload, jobs=self._jobs[workload])
        create_topics(self._bootstrap_servers, heap.app)
        preload(self._bootstrap_servers, requests_topic(heap.app), heap.jobs)
        before = self._broker_cpu_seconds()
        cpu = contestant.work_off(heap)
        for role, seconds in spent(before, self._broker_cpu_seconds()).items():
            cpu[role] = seconds / heap.jobs * 1000
        report = check(
            self._bootstrap_servers,
            app=heap.app,
            sla_seconds=_NO_SLA_SECONDS,
            correlation=contestant.correlation,
            expected_result=lambda job: job,
        )
        delete_topics(self._bootstrap_servers, heap.app)
        if report.jobs_per_s is None:
            raise LoadError(f"{contestant.name} gave {report.results} results of {report.jobs} jobs: nothing to measure")
        return Round(
            jobs_per_s=report.jobs_per_s,
            lost=report.lost,
            duplicated=report.duplicated,
            wrong=report.unknown + report.mismatched_ids + report.wrong_payload,
            cpu_s_per_1000=cpu,
        )

    def _heap(self, workload: str, *, jobs: int) -> Heap:
        return Heap(
            bootstrap_servers=self._bootstrap_servers,
            app=f"bench-{workload}-{uuid.uuid4().hex[:8]}",
            workload=workload,
            jobs=jobs,
            cpu_loops=self._cpu_loops,
        )

    def _broker_cpu_seconds(self) -> dict[str, float]:
        if self._broker_pid is None:
            return {}
        return cpu_seconds([psutil.Process(self._broker_pid)], lambda _process: "broker")


def summarise(rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians over rounds; what is lost or double in any round counts."""
    speeds = [one.jobs_per_s for one in rounds]
    roles = sorted({role for one in rounds for role in one.cpu_s_per_1000})
    return {
        "jobs_per_s": round(statistics.median(speeds), 1),
        "spread": [round(min(speeds), 1), round(max(speeds), 1)],
        "lost": sum(one.lost for one in rounds),
        "duplicated": sum(one.duplicated for one in rounds),
        "wrong": sum(one.wrong for one in rounds),
        "cpu_s_per_1000": {
            role: round(statistics.median(one.cpu_s_per_1000.get(role, 0.0) for one in rounds), 4) for role in roles
        },
    }


def outcome_of(rounds: Rounds, open_loop: OpenLoop | None) -> dict[str, Any]:
    """The JSON of the bench: ``machine``, ``workloads``, ``references``, ``bars``."""
    workloads: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for (name, workload), done in rounds.items():
        if name == Rayline.name:
            workloads[workload] = {**summarise(done), "latency_ms": None}
        else:
            others[name] = summarise(done)
    if open_loop is not None and "echo" in workloads:
        workloads["echo"]["latency_ms"] = open_loop.latency_ms.to_json()
        workloads["echo"]["open_loop"] = {
            "rate_per_s": open_loop.schedule.rate_per_s,
            "jobs": open_loop.schedule.jobs,
            "over_one_second": open_loop.over_one_second,
            "missing": open_loop.missing,
            "producer_worst_slip_ms": round(open_loop.schedule.worst_slip_ms, 1),
        }
    outcome = {"machine": machine(), "workloads": workloads, "references": others}
    return {**outcome, "bars": [bar.to_json() for bar in judge_bars(outcome)]}


def machine() -> dict[str, Any]:
    """Where the figures come from: they compare within one run, not between machines."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": psutil.getloadavg()[0],
    }


def main(*, json_path: Path | None = None, arguments: Sequence[str] = ()) -> int:
    """Run the bench; 0 when every bar that was measured is met, 1 otherwise, 130 after Ctrl-C."""
    options = _options(arguments)
    rayline = Rayline()
    contestants: dict[str, Sequence[Contestant]] = {
        workload: [*([] if options.references_only else [rayline]), *references(workload)] for workload in options.workloads
    }
    rounds: Rounds = {}
    try:
        with interruptible():
            open_loop = _measure(options, contestants, rayline, rounds)
    except KeyboardInterrupt:
        done, wanted = sum(map(len, rounds.values())), options.repeat * sum(map(len, contestants.values()))
        note(f"interrupted after {done} of {wanted} rounds: no bar is judged, no JSON written")
        if rounds:
            print_outcome({**outcome_of(rounds, None), "bars": []})
        return INTERRUPTED_EXIT_CODE
    outcome = outcome_of(rounds, open_loop)
    print_outcome(outcome)
    if json_path is not None:
        json_path.write_text(json.dumps(outcome, indent=2) + "\n")
    return 0 if all(bar["met"] for bar in outcome["bars"]) else 1


def _measure(
    options: argparse.Namespace, contestants: dict[str, Sequence[Contestant]], rayline: Rayline, rounds: Rounds
) -> OpenLoop | None:
    """Everything, on a broker of its own; `rounds` is filled as they end."""
    with tempfile.TemporaryDirectory(prefix="rayline-bench-broker-") as folder, asyncio.Runner() as runner:
        broker = LocalKafka(data_dir=Path(folder))
        bootstrap_servers = runner.run(broker.start())
        try:
            bench = Bench(
                bootstrap_servers=bootstrap_servers,
                broker_pid=broker.pid,
                jobs=QUICK_JOBS if options.quick else JOBS,
                cpu_loops=calibrate_loops(),
                rounds=rounds,
                say=note,
            )
            bench.run_rounds(contestants, repeat=options.repeat)
            measured_latency = not options.references_only and "echo" in options.workloads
            return bench.open_loop(rayline, seconds=options.open_loop_seconds) if measured_latency else None
        finally:
            runner.run(broker.stop())


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rayline bench", description=main.__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the medians count (default 3)")
    parser.add_argument("--quick", action="store_true", help="small heaps: to see that it works, not to quote")
    parser.add_argument("--references-only", action="store_true", help="leave Rayline out")
    parser.add_argument("--open-loop-seconds", type=float, default=20.0, help="length of the latency run (default 20)")
    parser.add_argument("--workloads", nargs="+", choices=sorted(JOBS), default=list(JOBS))
    return parser.parse_args(list(arguments))


if __name__ == "__main__":
    raise SystemExit(main(arguments=sys.argv[1:]))
