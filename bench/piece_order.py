"""`python -m bench.piece_order`: a new file from one seeder to 8 and 24 nodes, in order and otherwise, in the same run.

In-order downloads all want the same piece from the same node; rarest first wants what few have, so that each node soon has
something that others want. The sessions are those of `runtime_env.peers`, without what they read from a store. The origin and
each node move `--rate-mb` in each direction at most.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import libtorrent

from rayline.errors import RaylineError
from runtime_env.bundle import hex_of
from runtime_env.peers.metainfo import BlobMetainfo, describe
from runtime_env.peers.session import apply_limits, filter_of, low_priority_threads, open_session
from runtime_env.peers.swarm import fetching, giving

TOKEN: Final = b"the token of the bench"
GIVE_UP_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 0.1


class Order(StrEnum):
    """In which order nodes ask for pieces. SUPER_SEEDED is rarest first from a seeder that shows each piece to one node."""

    SEQUENTIAL = "sequential"
    RAREST = "rarest first"
    SUPER_SEEDED = "super seeded"


@dataclass(frozen=True, slots=True)
class Row:
    """`copies` is what the origin sent, in files; `busiest_share` what the busiest node sent, in shares of what all nodes (the
    origin left out) sent: 1 / nodes is even."""

    order: Order
    nodes: int
    seconds: float
    copies: float
    busiest_share: float


@dataclass(frozen=True, slots=True)
class _Place:
    session: libtorrent.session
    handle: libtorrent.torrent_handle
    address: tuple[str, int]


def run(folder: Path, *, order: Order, nodes: int, size_bytes: int, rate: int) -> Row:
    """Raises RaylineError where it takes longer than GIVE_UP_SECONDS."""
    metainfo = _new_file(folder / "origin", size_bytes)
    hosts = [f"127.78.0.{number + 2}" for number in range(nodes + 1)]
    with low_priority_threads(1, "bench-order") as threads:
        places = [
            threads.submit(_open, folder, metainfo, order, host, hosts, rate=rate, origin=not number).result()
            for number, host in enumerate(hosts)
        ]
        started = time.monotonic()
        for place in places:
            for other in places:
                if other.address > place.address:
                    place.handle.connect_peer(other.address)
        _await_all([place.handle for place in places[1:]])
        seconds = time.monotonic() - started
        sent = [place.handle.status().total_payload_upload for place in places]
        for place in places:
            place.session.pause()
    return Row(
        order,
        nodes,
        round(seconds, 1),
        round(sent[0] / size_bytes, 2),
        round(max(sent[1:]) / max(1, sum(sent[1:])), 3),
    )


def _open(
    folder: Path, metainfo: BlobMetainfo, order: Order, host: str, hosts: Sequence[str], *, rate: int, origin: bool
) -> _Place:
    session = open_session(host=host, port=0, encrypted=False)
    session.set_ip_filter(filter_of(hosts))
    apply_limits(session, rate, rate)
    if origin:
        parameters = giving(metainfo, TOKEN, folder / "origin", super_seeding=order is Order.SUPER_SEEDED)
    else:
        own = folder / host
        own.mkdir()
        parameters = fetching(metainfo, TOKEN, own, None)
        if order is Order.SEQUENTIAL:
            parameters.flags |= libtorrent.torrent_flags.sequential_download
    handle = session.add_torrent(parameters)
    return _Place(session, handle, (host, session.listen_port()))


def _await_all(handles: Sequence[libtorrent.torrent_handle]) -> None:
    pause, until = threading.Event(), time.monotonic() + GIVE_UP_SECONDS
    while not all(handle.status().is_seeding for handle in handles):
        if time.monotonic() > until:
            raise RaylineError(f"not all nodes have the file after {GIVE_UP_SECONDS:g} s")
        pause.wait(_LOOK_SECONDS)


def _new_file(folder: Path, size_bytes: int) -> BlobMetainfo:
    folder.mkdir()
    made = folder / "made"
    made.write_bytes(os.urandom(size_bytes))
    metainfo = describe(made)
    made.rename(folder / hex_of(metainfo.digest))
    return metainfo


def main() -> int:
    """Print a row for each run; rows of one number of nodes compare, as they ran one after the other."""
    parser = argparse.ArgumentParser(prog="python -m bench.piece_order", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=64)
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 24])
    parser.add_argument("--rate-mb", type=float, default=4.0, help="MB/s that the origin and each node may move (default 4)")
    parser.add_argument("--orders", type=Order, nargs="+", default=list(Order), choices=list(Order))
    parser.add_argument("--dir", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows = []
    for nodes in options.nodes:
        for order in options.orders:
            with tempfile.TemporaryDirectory(prefix="rayline-bench-order-", dir=options.dir) as folder:
                size, rate = options.size_mib * 2**20, int(options.rate_mb * 1e6)
                rows.append(run(Path(folder), order=order, nodes=nodes, size_bytes=size, rate=rate))
            sys.stdout.write(_told(rows[-1]) + "\n")
            sys.stdout.flush()
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2), encoding="utf-8")
    return 0


def _told(row: Row) -> str:
    return (
        f"{row.order:13} {row.nodes:3} nodes {row.seconds:7.1f} s  origin sent {row.copies:5.2f} copies  "
        f"the busiest node sent {row.busiest_share:.1%} of what nodes sent (even: {1 / row.nodes:.1%})"
    )


if __name__ == "__main__":
    sys.exit(main())
