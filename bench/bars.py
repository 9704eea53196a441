"""What the figures must reach, each as a ratio within one run or an absolute bound."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

ALONE = "echo_aiokafka_transactions"


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the verdict: ``value`` must be at least (or at most) ``bound``."""

    name: str
    value: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the value keeps to its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "met": self.met}


# workload, reference, least ratio of jobs/s
THROUGHPUT = (
    ("echo", ALONE, 0.6),
    ("echo", "echo_ray_micro_batches", 1.2),
    ("cpu", "cpu_ray_micro_batches", 0.93),
    ("io", "io_ray_micro_batches", 1.2),
)
ECHO_P99_MS = 200.0
ECHO_MAX_MS = 1000.0
CPU_RATIO = 1.8


def judge_bars(outcome: Mapping[str, Any]) -> list[Bar]:
    """The bars of all that was measured; what was not measured has none."""
    return [*_throughput(outcome), *_latency(outcome), *_cpu(outcome), *_correctness(outcome)]


def _throughput(outcome: Mapping[str, Any]) -> Iterator[Bar]:
    for workload, reference, least in THROUGHPUT:
        ours, theirs = outcome["workloads"].get(workload), outcome["references"].get(reference)
        if ours and theirs:
            ratio = ours["jobs_per_s"] / theirs["jobs_per_s"]
            yield Bar(f"{workload}: jobs/s ÷ {reference}", round(ratio, 3), least, at_least=True)


def _latency(outcome: Mapping[str, Any]) -> Iterator[Bar]:
    echo = outcome["workloads"].get("echo")
    if echo and echo["latency_ms"] and echo["latency_ms"]["max"] is not None:
        yield Bar("echo open loop: p99 ms", round(echo["latency_ms"]["p99"], 1), ECHO_P99_MS, at_least=False)
        yield Bar("echo open loop: max ms", round(echo["latency_ms"]["max"], 1), ECHO_MAX_MS, at_least=False)
        yield Bar("echo open loop: missing results", echo["open_loop"]["missing"], 0, at_least=False)


def _cpu(outcome: Mapping[str, Any]) -> Iterator[Bar]:
    echo, alone = outcome["workloads"].get("echo"), outcome["references"].get(ALONE)
    if echo and alone:
        ours = echo["cpu_s_per_1000"].get("lane", 0.0) + echo["cpu_s_per_1000"].get("workers", 0.0)
        ratio = ours / alone["cpu_s_per_1000"]["lane"]
        yield Bar(f"echo: CPU of lane + workers ÷ {ALONE}", round(ratio, 3), CPU_RATIO, at_least=False)


def _correctness(outcome: Mapping[str, Any]) -> Iterator[Bar]:
    for workload, figures in outcome["workloads"].items():
        wrong = figures["lost"] + figures["duplicated"] + figures["wrong"]
        yield Bar(f"{workload}: lost, duplicated or wrong", wrong, 0, at_least=False)
