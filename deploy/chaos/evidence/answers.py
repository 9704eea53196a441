"""Each job's first result, as any `read_committed` reader sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.chaos.load import Clockwork
from deploy.committed_reader import StartOffsets, read_committed
from rayline.jobs import JOB_ID
from rayline.results import ATTEMPTS, BATCH, CLUSTER, NODE, OUTCOME, SOURCE, TIMING, TRIED, parse_timing, parse_tried
from rayline.topics import results_topic


@dataclass(frozen=True, slots=True)
class Answer:
    """First result of one job: when the job was due and when the result was appended (epoch milliseconds).

    `node` is `cluster/pod`. `dispatched_ms` is when the lane says that it sent the job for the last time: the append time less
    what the `timing` header tells. Both are None for a job that was never sent, or that got no answer from a node.
    """

    job: int
    partition: int
    due_ms: float
    answered_ms: float
    outcome: str = "ok"
    attempts: int = 1
    node: str | None = None
    dispatched_ms: float | None = None

    @property
    def latency_ms(self) -> float:
        return self.answered_ms - self.due_ms


def first_answers(bootstrap_servers: str, app: str, results_from: StartOffsets, clockwork: Clockwork) -> list[Answer]:
    """Read the results back, in the order of the jobs' numbers."""
    first: dict[int, Answer] = {}
    for record in read_committed(bootstrap_servers, results_topic(app), start=results_from):
        headers = {name: (raw or b"").decode("utf-8", "replace") for name, raw in record.headers}
        number = int(headers.get(JOB_ID) or -1_000_000)
        if number in first:
            continue
        timing = parse_timing(headers.get(TIMING, ""))
        node = _answering_node(headers)
        spent_ms = sum(timing.get(part, 0.0) for part in ("dispatch", "execute", "publish"))
        first[number] = Answer(
            job=number,
            partition=int(headers.get(SOURCE, "/-1/").split("/")[-2]),
            due_ms=clockwork.due_ms(number),
            answered_ms=float(record.timestamp_ms),
            outcome=headers.get(OUTCOME, ""),
            attempts=int(headers.get(ATTEMPTS, "0")),
            node=node,
            dispatched_ms=None if node is None else record.timestamp_ms - spent_ms,
        )
    return [first[number] for number in sorted(first)]


def _answering_node(headers: Mapping[str, str]) -> str | None:
    if NODE not in headers or CLUSTER not in headers:
        return None
    last = headers.get(BATCH, "").rpartition("/")[0]
    given_up = any(one.batch == last for one in parse_tried(headers.get(TRIED, "")))
    return None if given_up else f"{headers[CLUSTER]}/{headers[NODE]}"


def save_answers(path: Path, answers: Sequence[Answer]) -> None:
    """One JSON object a line, for whoever wants to look closer."""
    path.write_text("".join(json.dumps(asdict(answer)) + "\n" for answer in answers))
