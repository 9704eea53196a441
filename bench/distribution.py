"""`python -m bench.distribution`: new blobs to 1, 8 and 20 nodes, from peers and over plain HTTP, in the same run.

The origin is a web server; it and each node move at most `--rate-mb` in each direction, as by a network card of that speed. Each
node is a process of its own, and hears of the others by reports passed on as heartbeats are. `--dies` kills one of them, or the
origin for five seconds, when half a copy has left the origin. With `--bundle`, nodes do not only fetch: a bundle is built and
signed, and each of them puts it in place as the agent of a pod does (fetch, verify, unpack, check).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.distribution_contents import Contents, new_blobs, new_bundle, read_layers
from bench.distribution_node import Fetch, Task, run_node
from bench.distribution_run import Dies, Row, Way, run
from runtime_env.peers.allocator import give_memory_back

COPIES_BAR: Final = 1.2
SPEED_BAR: Final = 4.0
MEMORY_BAR: Final = 200 * 2**20
BAR_NODES: Final = 8


def bars(rows: list[Row]) -> dict[str, bool]:
    """What the curve is judged by; a bar whose runs are missing is left out."""
    by = {(row.way, row.nodes): row for row in rows}
    judged = {f"origin sends ≤ {COPIES_BAR} copies": all(row.copies <= COPIES_BAR for row in rows if row.way is Way.PEERS)}
    judged["a node stays under 200 MiB"] = all(row.memory_bytes < MEMORY_BAR for row in rows if row.way is Way.PEERS)
    judged["nobody asks a package index"] = all(row.index_requests == 0 for row in rows)
    http, peers = by.get((Way.HTTP, BAR_NODES)), by.get((Way.PEERS, BAR_NODES))
    if http is not None and peers is not None:
        gain = http.seconds / peers.seconds
        judged[f"{BAR_NODES} nodes finish ≥ {SPEED_BAR:g} × sooner than by HTTP (here {gain:.1f} ×)"] = gain >= SPEED_BAR
    return judged


def main() -> int:
    """Print the curve and the bars; the exit code is 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.distribution", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=256, help="of all blobs together (default 256)")
    parser.add_argument("--blobs", type=int, default=1, help="so many, of equal size (default 1)")
    parser.add_argument("--bundle", nargs="+", metavar="REQUIREMENT", help="a bundle with these packages instead of blobs")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 20])
    parser.add_argument("--rate-mb", type=float, default=50.0, help="MB/s of the origin and of each node; 0: no limit")
    parser.add_argument("--ways", type=Way, nargs="+", default=[Way.PEERS, Way.HTTP], choices=list(Way))
    parser.add_argument("--dies", type=Dies, choices=list(Dies), help="what is killed in the middle")
    parser.add_argument("--dir", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    for hidden in ("--node", "--store", "--name"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--layers", "--app", "--trust"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        give_memory_back()
        run_node(options.name, _task(options))
        return 0
    rate = int(options.rate_mb * 1e6) or None
    rows, sizes = [], set()
    for nodes in options.nodes:
        for way in options.ways:
            if options.dir is not None:
                options.dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="rayline-bench-peers-", dir=options.dir) as folder:
                contents = _contents(options, Path(folder))
                sizes.add(contents.size_bytes)
                rows.append(run(Path(folder), contents, way=way, nodes=nodes, rate=rate, dies=options.dies))
            sys.stdout.write(_told(rows[-1]) + "\n")
            sys.stdout.flush()
    judged = bars(rows)
    sys.stdout.write("\n".join([*(f"{'met   ' if met else 'MISSED'} {bar}" for bar, met in judged.items()), ""]))
    if options.json is not None:
        outcome = {"rows": [asdict(row) for row in rows], "bars": judged, "size_bytes": sorted(sizes), "bundle": options.bundle}
        options.json.write_text(json.dumps(outcome, indent=2), encoding="utf-8")
    return 0 if all(judged.values()) else 1


def _contents(options: argparse.Namespace, folder: Path) -> Contents:
    if options.bundle:
        return new_bundle(folder, requirements=options.bundle)
    return new_blobs(folder, count=options.blobs, size_bytes=options.size_mib * 2**20)


def _task(options: argparse.Namespace) -> Task:
    way, rate = Way(options.node), options.rate or None
    common = {"way": way, "name": options.name, "store_url": options.store, "rate": rate, "folder": options.dir}
    if options.app:
        # What only this kind of node imports is no memory of the other's.
        from bench.distribution_start import NodeStart

        return NodeStart(**common, app=options.app, trust=options.trust)
    return Fetch(**common, layers=read_layers(options.layers))


def _told(row: Row) -> str:
    phases = "".join(f"{phase} {seconds:.1f} s  " for phase, seconds in row.phases.items())
    return (
        f"{row.way:6} {row.nodes:3} nodes {row.seconds:7.1f} s  origin sent {row.copies:6.3f} copies  "
        f"{row.memory_bytes / 2**20:4.0f} MiB and {row.cpu_seconds_per_gib:4.1f} s of processor per GiB a node  "
        f"others used {row.others_share:.0%} of {os.cpu_count()} processors  "
        f"{row.index_requests} index requests  {phases}"
    )


if __name__ == "__main__":
    sys.exit(main())
