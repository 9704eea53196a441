"""Nodes behind translated networks: whoever can be reached is, and where nobody can, the store brings everything."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bench.range_server import RangeServer
from runtime_env.bundle import hex_of
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.metainfo import BlobMetainfo
from runtime_env.peers.node import PeerNode
from runtime_env.peers.options import PeerOptions
from runtime_env.store import FolderStore, open_store
from tests.support.network_namespaces import WAN, TwoNetworks, available
from tests.support.peer_network import QUICK, TOKEN, make_blob

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not available(), reason="needs root and network namespaces"),
]
MIB = 2**20
PORT = 6881


@pytest.fixture(scope="module")
def networks() -> Iterator[TwoNetworks]:
    with TwoNetworks() as made:
        yield made


@pytest.fixture
def blob(tmp_path: Path) -> BlobMetainfo:
    metainfo = make_blob(tmp_path / "made", 4 * MIB)
    FolderStore(path=tmp_path / "store").put_blob(metainfo.digest, tmp_path / "made" / hex_of(metainfo.digest))
    return metainfo


def fetch_on_both_sides(networks: TwoNetworks, folder: Path, blob: BlobMetainfo) -> tuple[list[int], int]:
    """Each side's bytes from the other, and what the origin sent, after both have the blob."""
    origin = networks.within("wan", lambda: RangeServer(folder=folder / "store", host=f"{WAN}.1"))
    nodes: list[PeerNode] = []
    for number, place in enumerate(("a", "b"), start=1):
        options = PeerOptions(
            name=place, host=f"10.{number}.0.2", port=PORT, public_host=f"{WAN}.{number + 1}", patience=QUICK, give_up_seconds=60
        )
        cache = BlobCache(path=folder / place, quota_bytes=2**40, free_bytes=0)
        node = PeerNode(options=options, cache=cache, store=open_store(origin.url))
        networks.within(place, node.start)
        nodes.append(node)
    with origin, ThreadPoolExecutor(2) as pool:
        try:
            # Known before either begins, as from earlier beats; what they fetch is heard a moment later.
            swarm = frozenset({blob.tag(TOKEN)})
            members = [node.member() for node in nodes]
            for node in nodes:
                node.set_members([replace(one, wants=swarm) for one in members])
            fetches = [
                pool.submit(networks.within, place, lambda node=node: node.fetch(blob, TOKEN))  # type: ignore[misc]
                for place, node in zip(("a", "b"), nodes, strict=True)
            ]
            data = (folder / "made" / hex_of(blob.digest)).read_bytes()
            assert all(fetch.result(timeout=90).read_bytes() == data for fetch in fetches)
            return [node.statistics().received for node in nodes], origin.sent_bytes
        finally:
            for node in nodes:
                node.close()


def test_where_neither_gets_through_the_store_brings_everything(
    networks: TwoNetworks, tmp_path: Path, blob: BlobMetainfo
) -> None:
    received, sent = fetch_on_both_sides(networks, tmp_path, blob)
    assert received == [0, 0]
    assert 2 * blob.size_bytes <= sent <= 2.1 * blob.size_bytes


def test_one_side_that_can_be_reached_is_enough_for_both(networks: TwoNetworks, tmp_path: Path, blob: BlobMetainfo) -> None:
    networks.forward("ra", PORT, f"10.1.0.2:{PORT}")
    received, sent = fetch_on_both_sides(networks, tmp_path, blob)
    assert all(count > 0.2 * blob.size_bytes for count in received)
    assert sent <= 1.2 * blob.size_bytes
