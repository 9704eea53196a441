"""Nodes that know of each other by their beats alone share what they fetch."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.range_server import RangeServer
from deploy.node_peers import open_peers
from deploy.peer_inspection import PeerNodeState, spread_of
from rayline.bus import Delivery
from rayline.errors import ConfigError
from rayline.reports import decode_reports
from rayline.topics import BEATS_PARTITION
from runtime_env.bundle import Layer, LayerKind, hex_of
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.metainfo import describe
from runtime_env.store import FolderStore, open_store
from tests.support.peer_network import new_host
from workers.reporting import Reporter

pytestmark = pytest.mark.integration

KIB = 2**10
TOKEN = "a token that all nodes have"
NODES = 4


class Node:
    """What an agent does of this: beats, and a source of blobs."""

    def __init__(self, *, name: str, folder: Path, store_url: str, publisher: Any) -> None:
        cache = BlobCache(path=folder, quota_bytes=2**40, free_bytes=0)
        environment = {"RAYLINE_PEERS_TOKEN": TOKEN, "RAYLINE_PEERS_HOST": new_host()}
        opened = open_peers(environment, node=f"a/{name}", cores=64, store=open_store(store_url), cache=cache)
        assert opened is not None
        self.source, self.peering = opened
        self._reporter = Reporter(cluster="a", node=name, incarnation=1, cpus=1, zone=None, publisher=publisher)

    async def beat(self) -> None:
        await self._reporter.beat(None, peer=self.peering.presence())


class Beats:
    """Stands for the topic: each node hears each beat."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.newest: dict[bytes | None, bytes] = {}

    async def send(
        self, _: str, *, key: bytes | None, value: bytes | None, partition: int | None = None
    ) -> asyncio.Future[Delivery]:
        assert value is not None
        assert partition == BEATS_PARTITION
        self.newest[key] = value
        for node in self.nodes:
            node.peering.hear(value, time.monotonic())
            node.peering.tell(time.monotonic())
        delivered: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        delivered.set_result(Delivery(BEATS_PARTITION, 0, round(time.time() * 1000)))
        return delivered

    async def keep_beating(self) -> None:
        while True:
            for node in self.nodes:
                await node.beat()
            await asyncio.sleep(0.3)

    def states(self) -> list[PeerNodeState]:
        reports = [decode_reports(value)[0] for _, value in sorted(self.newest.items())]
        return [PeerNodeState(report, report.peer, 0) for report in reports if report.peer is not None]


def published(folder: Path, *sizes: int) -> list[Layer]:
    store = FolderStore(path=folder)
    layers = []
    for number, size in enumerate(sizes):
        made = folder.parent / f"made-{number}"
        made.write_bytes(os.urandom(size))
        metainfo = describe(made)
        store.put_metainfo(metainfo)
        store.put_blob(metainfo.digest, made)
        layers.append(Layer(f"layer-{number}", LayerKind.PACKAGE, metainfo.digest, size, size, 1))
    return layers


async def test_nodes_share_a_bundle_by_their_beats_and_tell_who_has_it(tmp_path: Path) -> None:
    layers = published(tmp_path / "store", 2048 * KIB, 512 * KIB, 10 * KIB)
    beats = Beats()
    with RangeServer(folder=tmp_path / "store") as origin:
        for number in range(NODES):
            folder = tmp_path / f"n{number}"
            beats.nodes.append(Node(name=f"n{number}", folder=folder, store_url=origin.url, publisher=beats))
        beating = asyncio.create_task(beats.keep_beating())
        came: Counter[int] = Counter()

        def fetch(number: int) -> dict[str, Path]:
            return beats.nodes[number].source.fetch(layers, lambda count: came.update({number: count}))

        try:
            fetched = await asyncio.gather(*(asyncio.to_thread(fetch, number) for number in range(NODES)))
        finally:
            beating.cancel()
            await asyncio.wait({beating})
        for paths in fetched:
            assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values()} == {
                hex_of(layer.digest) for layer in layers
            }
        assert came == dict.fromkeys(range(NODES), sum(layer.size_bytes for layer in layers))
        # Descriptions, and the layer that is too small to share, are read by each.
        shared = layers[0].size_bytes + layers[1].size_bytes
        assert origin.sent_bytes <= 1.2 * shared + NODES * (layers[2].size_bytes + 20 * KIB)
        for node in beats.nodes:
            await node.beat()
        store = open_store(origin.url)
        tags = {store.get_metainfo(layer.digest).tag(TOKEN.encode()): layer for layer in layers[:2]}
        everybody = tuple(f"a/n{number}" for number in range(NODES))
        assert [one.held_by for one in spread_of(beats.states(), tags)] == [everybody, everybody]
        for node in beats.nodes:
            await asyncio.to_thread(node.peering.close)
    again = Node(name="n0", folder=tmp_path / "n0", store_url=str(tmp_path / "nothing"), publisher=beats)
    try:
        # What it has is given on without a word from the store.
        assert len(again.peering.presence().holds) == 2
    finally:
        again.peering.close()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RAYLINE_PEERS_TOKEN": "short", "RAYLINE_PEERS_HOST": "127.0.0.1"}, "has 5 characters"),
        ({"RAYLINE_PEERS_TOKEN": TOKEN}, "RAYLINE_PEERS_HOST is not set"),
        ({"RAYLINE_PEERS_TOKEN": TOKEN, "RAYLINE_PEERS_HOST": "127.0.0.1", "RAYLINE_PEERS_PORT": "x"}, "give a port"),
    ],
)
def test_variables_that_cannot_be_meant_are_refused(tmp_path: Path, variables: dict[str, str], message: str) -> None:
    cache = BlobCache(path=tmp_path, quota_bytes=2**40)
    with pytest.raises(ConfigError, match=message):
        open_peers(variables, node="a/n", cores=1, store=FolderStore(path=tmp_path / "store"), cache=cache)


def test_without_a_token_or_where_nobody_can_listen_the_store_alone_serves(tmp_path: Path) -> None:
    cache = BlobCache(path=tmp_path, quota_bytes=2**40)
    store = FolderStore(path=tmp_path / "store")
    assert open_peers({}, node="a/n", cores=1, store=store, cache=cache) is None
    elsewhere = {"RAYLINE_PEERS_TOKEN": TOKEN, "RAYLINE_PEERS_HOST": "192.0.2.1"}
    assert open_peers(elsewhere, node="a/n", cores=1, store=store, cache=cache) is None
