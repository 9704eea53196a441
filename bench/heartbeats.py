"""What a beat costs against how soon silence is noticed: intervals of 0.5, 1, 2 and 5 s beside each other.

    python -m bench.heartbeats [--seconds 10] [--nodes 8] [--trials 500] [--json FILE]

CPU and bytes are measured: the agents' own heartbeat (sample, encode, send) against a real broker, in this process. Detection
time is computed by the real view: a node falls silent at a random moment, and the view is asked each 10 ms when it is suspect.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from deploy.broker import LocalKafka
from rayline.bus import Delivery, KafkaSettings, Publisher, ensure_topics
from rayline.reports import NodeReport, NodeState
from rayline.topics import platform_topics
from scheduler.view import View
from workers.heartbeat import JITTER_SHARE, Heartbeat
from workers.reporting import Reporter
from workers.sampling import Sampler, find_cards

INTERVALS_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
_LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """One interval. CPU and bytes are those of one node; detection is from the last sign of life's process stopping until the
    view calls the node suspect."""

    interval_seconds: float
    cpu_ms_per_second: float
    bytes_per_second: float
    beats: int
    detection_p50_seconds: float
    detection_p99_seconds: float
    detection_max_seconds: float


class CountingPublisher:
    """Counts what passes on its way to the broker."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.bytes = 0
        self.records = 0

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, partition: int | None = None
    ) -> asyncio.Future[Delivery]:
        self.bytes += len(key or b"") + len(value or b"")
        self.records += 1
        return await self._publisher.send(topic, key=key, value=value, partition=partition)


async def measure_cost(
    settings: KafkaSettings, *, interval_seconds: float, nodes: int, seconds: float
) -> tuple[float, float, int]:
    """CPU milliseconds and bytes a second of one node, and the number of beats of all."""
    async with Publisher(settings=settings, client_id="rayline-bench-heartbeats") as publisher:
        counting = CountingPublisher(publisher)

        def heartbeat(number: int) -> Heartbeat:
            reporter = Reporter(cluster="c1", node=f"pod-{number}", incarnation=1, cpus=1, zone=None, publisher=counting)
            sampler = Sampler(session=os.getsid(0), disk=tempfile.gettempdir(), cards=find_cards())

            async def beat() -> None:
                await reporter.beat(await asyncio.to_thread(sampler.sample, time.monotonic()))

            return Heartbeat(beat=beat, interval_seconds=interval_seconds)

        tasks = [asyncio.create_task(heartbeat(number).run()) for number in range(nodes)]
        await asyncio.sleep(interval_seconds)
        began, cpu, sent, records = time.monotonic(), time.process_time(), counting.bytes, counting.records
        await asyncio.sleep(seconds)
        elapsed, used = time.monotonic() - began, time.process_time() - cpu
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return used / elapsed / nodes * 1000, (counting.bytes - sent) / elapsed / nodes, counting.records - records


def detection_seconds(*, interval_seconds: float, trials: int, seed: int) -> list[float]:
    """From the moment in which a node is stopped until the view calls it suspect, while a neighbour is heard all the time."""
    dice = random.Random(seed)
    return [_detect(interval_seconds, dice) for _ in range(trials)]


def _detect(interval_seconds: float, dice: random.Random) -> float:
    view = View(beat_seconds=interval_seconds)
    last_beat = 0.0
    for _ in range(3):
        last_beat += interval_seconds * dice.uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)
        view.apply([_beat("stopped", last_beat, interval_seconds)], last_beat)
    stopped = last_beat + dice.uniform(0, interval_seconds)
    now = last_beat
    next_neighbour = last_beat + dice.uniform(0, interval_seconds)
    while not view.suspect("c1/stopped", now):
        now += _LOOK_SECONDS
        if now >= next_neighbour:
            view.apply([_beat("neighbour", now, interval_seconds)], now)
            next_neighbour += interval_seconds * dice.uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)
    return now - stopped


def _beat(node: str, at: float, interval_seconds: float) -> NodeReport:
    return NodeReport(
        cluster="c1",
        node=node,
        incarnation=1,
        seq=int(at * 1000),
        state=NodeState.READY,
        beat=True,
        interval_ms=round(interval_seconds * 1000),
    )


async def sweep(*, nodes: int, seconds: float, trials: int) -> list[Row]:
    """All intervals, one after the other."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="rayline-bench-heartbeats-") as folder:
        broker = LocalKafka(data_dir=Path(folder))
        await broker.start()
        try:
            await ensure_topics(broker.settings, platform_topics())
            for interval in INTERVALS_SECONDS:
                cost = await measure_cost(broker.settings, interval_seconds=interval, nodes=nodes, seconds=seconds)
                found = sorted(detection_seconds(interval_seconds=interval, trials=trials, seed=1))
                rows.append(
                    Row(
                        interval_seconds=interval,
                        cpu_ms_per_second=round(cost[0], 2),
                        bytes_per_second=round(cost[1], 1),
                        beats=cost[2],
                        detection_p50_seconds=round(statistics.median(found), 2),
                        detection_p99_seconds=round(found[int(len(found) * 0.99)], 2),
                        detection_max_seconds=round(found[-1], 2),
                    )
                )
        finally:
            await broker.stop()
    return rows


def main(arguments: list[str]) -> int:
    """Print the table; exit code 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="measured time for each interval")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    given = parser.parse_args(arguments)
    rows = asyncio.run(sweep(nodes=given.nodes, seconds=given.seconds, trials=given.trials))
    sys.stdout.write("interval s  CPU ms/s  bytes/s  suspect after s: p50   p99   max\n")
    for row in rows:
        sys.stdout.write(
            f"{row.interval_seconds:10.1f}  {row.cpu_ms_per_second:8.2f}  {row.bytes_per_second:7.0f}"
            f"  {row.detection_p50_seconds:20.2f}  {row.detection_p99_seconds:4.2f}  {row.detection_max_seconds:4.2f}\n"
        )
    if given.json is not None:
        given.json.write_text(json.dumps({"nodes": given.nodes, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
