"""A node finds out by what it fetches how fast its link is, and keeps to half of that: over links that the kernel shapes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.range_server import RangeServer
from rayline.errors import PeerError
from runtime_env.bundle import hex_of
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.limits import LINK_SHARE
from runtime_env.peers.node import PeerNode
from runtime_env.peers.options import PeerOptions
from runtime_env.store import FolderStore, open_store
from tests.support.network_namespaces import WAN, TwoNetworks, available
from tests.support.peer_network import QUICK, TOKEN, make_blob, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not available() or not shutil.which("tc"), reason="needs root, network namespaces and tc"),
]
MIB = 2**20
# Bytes per second by the host behind.
LINKS = {"a": 2 * MIB, "b": 8 * MIB}


@pytest.fixture
def networks() -> Iterator[TwoNetworks]:
    with TwoNetworks() as made:
        try:
            for place, link in LINKS.items():
                made.shape(f"r{place}", link)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel shapes no links: {error.stderr.decode()}")
        yield made


def test_each_nodes_limit_follows_the_link_that_it_found_out(networks: TwoNetworks, tmp_path: Path) -> None:
    blob = make_blob(tmp_path / "made", 96 * MIB)
    FolderStore(path=tmp_path / "store").put_blob(blob.digest, tmp_path / "made" / hex_of(blob.digest))
    nodes: dict[str, PeerNode] = {}
    with (
        networks.within("wan", lambda: RangeServer(folder=tmp_path / "store", host=f"{WAN}.1")) as origin,
        ThreadPoolExecutor(2) as pool,
    ):
        for number, place in enumerate(LINKS, start=1):
            # So many cores that the link alone decides.
            options = PeerOptions(name=place, host=f"10.{number}.0.2", cores=1000, patience=QUICK)
            cache = BlobCache(path=tmp_path / place, quota_bytes=2**40, free_bytes=0)
            node = nodes[place] = PeerNode(options=options, cache=cache, store=open_store(origin.url))
            networks.within(place, node.start)
        fetches = [
            pool.submit(networks.within, place, lambda node=node: node.fetch(blob, TOKEN))  # type: ignore[misc]
            for place, node in nodes.items()
        ]

        def shares() -> dict[str, float]:
            """Each node's limit, in what it should be."""
            return {place: (nodes[place].limits.own_download or 0) / (LINK_SHARE * link) for place, link in LINKS.items()}

        try:
            # A node that was held up while it tested its link tests it again; what waited in buffers comes faster than the link.
            wait_until(lambda: all(0.6 <= share <= 1.7 for share in shares().values()), 60)
            found = shares()
        finally:
            for node in nodes.values():
                node.close()
        assert {type(fetch.exception(timeout=30)) for fetch in fetches} <= {PeerError, type(None)}
    assert found["b"] * LINKS["b"] >= 1.4 * found["a"] * LINKS["a"]
