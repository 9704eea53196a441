"""A node in a process of its own, to be killed: FOLDER STORE DIGEST HOST."""

from __future__ import annotations

import sys
from pathlib import Path

from runtime_env.peers.cache import BlobCache
from runtime_env.peers.node import PeerNode
from runtime_env.peers.options import PeerOptions
from runtime_env.store import open_store
from tests.support.peer_network import QUICK, TOKEN


def main() -> None:
    folder, url, digest, host = sys.argv[1:]
    store = open_store(url)
    cache = BlobCache(path=Path(folder), quota_bytes=2**40, free_bytes=0)
    with PeerNode(options=PeerOptions(name="killed", host=host, patience=QUICK), cache=cache, store=store) as node:
        node.fetch(store.get_metainfo(digest), TOKEN)


if __name__ == "__main__":
    main()
