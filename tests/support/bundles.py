"""Bundles without a build: the interpreter is a script that starts the one that runs the tests, with packages of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rayline.engines import Engine
from runtime_env.bundle import Bundle
from runtime_env.signing import SigningKey
from runtime_env.store import WritableStore, publish
from tests.support.layers import bundle_of, packed_layer

_PYTHON = f"""#!/bin/sh
PYTHONPATH="$(dirname "$0")/../site" exec {sys.executable} "$@"
"""


def publish_bundle(
    store: WritableStore,
    scratch: Path,
    *,
    app: str,
    version: str,
    code: str,
    packages: Mapping[str, str],
    variables: Mapping[str, str] | None = None,
    engine: Engine | None = None,
    key: SigningKey | None = None,
) -> Bundle:
    """`code` is the app's feature.py, `packages` the source of each module of the environment, by name; `key` signs it."""
    trees = {
        "python": {"bin/python3": _PYTHON},
        "app": {"app/feature.py": code},
        **{name: {f"site/{name}.py": source} for name, source in packages.items()},
    }
    layers, blobs = [], {}
    for name, files in trees.items():
        tree = scratch / app / version / name
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
            (tree / path).chmod(0o755 if path.startswith("bin/") else 0o644)
        layer, blob = packed_layer(tree, scratch / "blobs", name=name)
        layers.append(layer)
        blobs[layer.digest] = blob
    bundle = replace(
        bundle_of(*layers, app=app, version=version),
        entrypoint="feature:feature",
        python=sys.version.split()[0],
        variables=dict(variables or {}),
        engine=engine,
    )
    publish(store, bundle, blobs, key=key)
    return bundle
