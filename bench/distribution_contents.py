"""What a run of `bench.distribution` gives to its nodes: random blobs, or a bundle as `rayline env build` makes it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime_env.bundle import Layer, LayerKind
from runtime_env.peers.metainfo import describe
from runtime_env.signing import SigningKey
from runtime_env.store import FolderStore, publish
from runtime_env.store.protocol import blob_path

_MANIFEST: Final = """name: spread
entrypoint: feature:f
env:
  python: '{python}'
  requirements: [{requirements}]
"""
_CODE: Final = "def f(job):\n    return {}\n"


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in `store`, bytes of all its blobs together, and by which arguments a node is told what of it to get."""

    store: Path
    size_bytes: int
    arguments: tuple[str, ...]


def new_blobs(folder: Path, *, count: int, size_bytes: int) -> Contents:
    """Blobs that are nowhere else, of `size_bytes` together."""
    each = size_bytes // count
    digests = [_new_blob(folder, each, number) for number in range(count)]
    layers = folder / "layers.json"
    layers.write_text(json.dumps([[digest, each] for digest in digests]))
    return Contents(folder / "store", each * count, ("--layers", str(layers)))


def read_layers(path: Path) -> list[Layer]:
    """What `new_blobs` wrote for its nodes."""
    return [Layer(digest[7:19], LayerKind.MODEL, digest, size, size, 1) for digest, size in json.loads(path.read_text())]


def new_bundle(folder: Path, *, requirements: Sequence[str]) -> Contents:
    """A signed bundle of an app with these requirements and what Rayline's actors need, built with this machine's package index
    or what the user's build cache has of it. Raises BuildError."""
    # Nodes read this module, too, and their memory is measured.
    from deploy.bundle_choice import with_bundle
    from rayline.manifest import load_manifest
    from runtime_env.build import BuildCache, Builder
    from runtime_env.build.cache import default_cache_folder

    app, store = folder / "app", FolderStore(path=folder / "store")
    app.mkdir()
    manifest = _MANIFEST.format(
        python=f"{sys.version_info.major}.{sys.version_info.minor}", requirements=", ".join(f"'{one}'" for one in requirements)
    )
    (app / "app.yaml").write_text(manifest, encoding="utf-8")
    (app / "feature.py").write_text(_CODE, encoding="utf-8")
    spec = load_manifest(app)
    built = Builder(cache=BuildCache(path=default_cache_folder())).build(spec)
    key = SigningKey.generate(folder / "key")
    trust, announced = folder / "trust", folder / "app.json"
    trust.write_text(f"ed25519 {key.public} bench\n", encoding="utf-8")
    publish(store, built.bundle, built.blob_paths, key=key)
    announced.write_text(json.dumps(with_bundle(spec, store).as_dict()), encoding="utf-8")
    return Contents(folder / "store", built.bundle.size_bytes, ("--app", str(announced), "--trust", str(trust)))


def _new_blob(folder: Path, size_bytes: int, number: int) -> str:
    """Each MiB of it is another one, and none of it can be compressed."""
    source = folder / "source"
    noise = os.urandom(2**20)
    with source.open("wb") as file:
        for start in range(0, size_bytes, 2**20):
            file.write((start + number).to_bytes(8, "big"))
            file.write(noise[8 : min(2**20, size_bytes - start)])
    metainfo = describe(source)
    FolderStore(path=folder / "store").put_metainfo(metainfo)
    place = folder / "store" / blob_path(metainfo.digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    source.rename(place)
    return metainfo.digest
