"""Merging, publishing and reading back the view of many nodes, in one process: `python -m bench.view_scale [--json FILE]`.

One tick is what a second brings: a beat of each node. Printed for each size: time of a tick in a resource (read the beats, merge
them, write the round) and in a lane (read the round, merge it, list the nodes of an app), bytes of a round, and memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import resource as limits
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from rayline.reports import ActorEndpoint, NodeLoad, NodeReport, NodeState, decode_reports, encode_reports
from rayline.view_record import decode_view_record
from scheduler.listener import Heard
from scheduler.resource import WHOLE_EVERY_ROUNDS, Resource
from scheduler.routes import Routes
from scheduler.view import View

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
TICKS: Final = 3
NODES_PER_CLUSTER: Final = 1_000


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds for one tick, bytes of one round, and the process's largest memory."""

    nodes: int
    read_beats_seconds: float
    merge_seconds: float
    write_round_seconds: float
    round_bytes: int
    whole_round_bytes: int
    round_records: int
    lane_read_seconds: float
    lane_merge_seconds: float
    lane_routes_seconds: float
    max_rss_bytes: int

    @property
    def holds_each_second(self) -> bool:
        """Whether a resource and a lane each are done before the next beat."""
        resource_seconds = self.read_beats_seconds + self.merge_seconds + self.write_round_seconds
        return max(resource_seconds, self.lane_read_seconds + self.lane_merge_seconds + self.lane_routes_seconds) < 1.0


def measure(nodes: int) -> Scale:
    """The best of some ticks with so many nodes."""
    # As the processes themselves do.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    reports = [_report(number) for number in range(nodes)]
    resource = Resource(name="r")
    lane, routes = View(), Routes("app")
    best: dict[str, float] = {}
    size = count = whole = 0

    def note(name: str, began: float) -> None:
        seconds = time.process_time() - began
        best[name] = min(best.get(name, seconds), seconds)

    for tick in range(TICKS):
        now = float(tick)
        values = [encode_reports([replace(report, seq=tick + 1)]) for report in reports]
        began = time.process_time()
        heard = [decode_reports(value) for value in values]
        note("read_beats_seconds", began)
        began = time.process_time()
        for beat in heard:
            resource.take(Heard(beat, now, now))
        note("merge_seconds", began)
        del values, heard
        resource.started(now)
        began = time.process_time()
        records = resource.records(now)
        note("write_round_seconds", began)
        if tick % WHOLE_EVERY_ROUNDS == 0:
            whole = sum(len(record.value or b"") for record in records)
        size, count = sum(len(record.value or b"") for record in records), len(records)
        began = time.process_time()
        told = [decode_view_record(record.value) for record in records if record.value is not None]
        note("lane_read_seconds", began)
        began = time.process_time()
        for record in told:
            lane.apply(record.reports, now)
        note("lane_merge_seconds", began)
        del records, told
        began = time.process_time()
        assert len(routes.update(lane, "1", now).told) == nodes
        note("lane_routes_seconds", began)
    rss = limits.getrusage(limits.RUSAGE_SELF).ru_maxrss * 1024
    return Scale(nodes=nodes, round_bytes=size, whole_round_bytes=whole, round_records=count, max_rss_bytes=rss, **best)


def _report(number: int) -> NodeReport:
    cluster, node = f"c{number // NODES_PER_CLUSTER}", f"pod-{number % NODES_PER_CLUSTER}"
    actor = ActorEndpoint("app", "1", f"app-{node}", "10.0.0.1", 20_000, 4, f"{cluster}-{node}-1")
    load = NodeLoad(cores=4.0, host_cpu=0.51, own_cpu=1.25, host_memory=0.4, own_memory_bytes=1 << 30, jobs_in_flight=3)
    return NodeReport(cluster, node, 1_700_000_000_000, 1, NodeState.READY, 4.0, "zone-a", (actor,), None, beat=True, load=load)


def main() -> None:
    parser = argparse.ArgumentParser(description="Merge, publish and read back the view of many nodes.")
    parser.add_argument("--nodes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    # Each size in a process of its own, so that the memory is its own.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for scale in pool.imap(measure, options.nodes, chunksize=1):
            results.append(asdict(scale) | {"holds_each_second": scale.holds_each_second})
            sys.stdout.write(json.dumps(results[-1]) + "\n")
            sys.stdout.flush()
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
