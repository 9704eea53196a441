"""`python -m bench.environments`: builds, rebuilds, unpacks a bundle with Ray, numpy and onnxruntime, and judges the bars.

Needs a package index (or uv's cache) that has them. Nothing of it runs in CI.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rayline.manifest import load_manifest
from runtime_env.build import BuildCache, Builder, BuildOptions, Built
from runtime_env.preflight import check_health
from runtime_env.store import FolderStore, publish
from runtime_env.unpack import unpack

WARM_SECONDS: Final = 3.0
WARM_BYTES: Final = 2**20
UNPACK_SECONDS: Final = 3.0
_MANIFEST: Final = """name: bench-environment
entrypoint: feature:f
env:
  python: '{python}'
  requirements: ['ray[default]', numpy, onnxruntime]
"""
_CODE: Final = "import numpy, onnxruntime, ray\n\n\ndef f(job):\n    return {}\n"


@dataclass(frozen=True, slots=True)
class Step:
    """Wall time and processor time (children included) of one step, in seconds."""

    name: str
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured; sizes in bytes."""

    steps: tuple[Step, ...]
    layers: int
    files: int
    size_bytes: int
    content_bytes: int
    warm_moved_bytes: int
    differing_layers: tuple[str, ...]
    remade_layers: int

    def step(self, name: str) -> Step:
        return next(one for one in self.steps if one.name == name)

    def bars(self) -> dict[str, bool]:
        return {
            f"warm build ≤ {WARM_SECONDS:g} s": self.step("warm build").wall_seconds <= WARM_SECONDS,
            "warm build moves ≤ 1 MiB": self.warm_moved_bytes <= WARM_BYTES,
            f"unpack ≤ {UNPACK_SECONDS:g} s": self.step("unpack").wall_seconds <= UNPACK_SECONDS,
            "equal digest on a second build in another folder": not self.differing_layers and self.remade_layers == self.layers,
        }


def measure(folder: Path, *, python: str, say: Callable[[str], None]) -> Outcome:
    """Run all steps below `folder`, which must be empty."""
    steps: list[Step] = []

    @contextmanager
    def step(name: str) -> Iterator[None]:
        say(name)
        wall, cpu = time.monotonic(), _cpu_seconds()
        yield
        steps.append(Step(name, round(time.monotonic() - wall, 2), round(_cpu_seconds() - cpu, 2)))

    def build(app: Path, cache: str) -> Built:
        return Builder(cache=BuildCache(path=folder / cache)).build(load_manifest(app), BuildOptions(bare=True))

    app, another = folder / "app", folder / "another" / "place"
    app.mkdir()
    (app / "app.yaml").write_text(_MANIFEST.format(python=python), encoding="utf-8")
    (app / "feature.py").write_text(_CODE.format("1"), encoding="utf-8")
    store = FolderStore(path=folder / "store")
    with step("cold build"):
        cold = build(app, "cache")
        publish(store, cold.bundle, cold.blob_paths, key=None)
    (app / "feature.py").write_text(_CODE.format("2"), encoding="utf-8")
    with step("warm build"):
        warm = build(app, "cache")
        moved = publish(store, warm.bundle, warm.blob_paths, key=None).moved_bytes
    with step("unpack"):
        root = unpack(warm.bundle, warm.blob_paths, folder / "node")
    with step("switch to the version before"):
        unpack(cold.bundle, cold.blob_paths, folder / "node")
    with step("health check"):
        check_health(root, warm.bundle)
    shutil.copytree(app, another)
    with step("second build, own cache"):
        second = build(another, "second-cache")
    return Outcome(
        steps=tuple(steps),
        layers=len(warm.bundle.layers),
        files=sum(layer.files for layer in warm.bundle.layers),
        size_bytes=warm.bundle.size_bytes,
        content_bytes=warm.bundle.content_bytes,
        warm_moved_bytes=moved,
        differing_layers=tuple(
            one.name for one, other in zip(second.bundle.layers, warm.bundle.layers, strict=True) if one != other
        ),
        remade_layers=len(second.made),
    )


def main() -> int:
    """Print the table and the bars; the exit code is 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.environments", description=__doc__)
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}")
    parser.add_argument("--dir", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rayline-bench-env-", dir=options.dir) as folder:
        outcome = measure(Path(folder), python=options.python, say=_tell)
    load = os.getloadavg()[0]
    lines = [f"{one.name:30} {one.wall_seconds:8.2f} s wall {one.cpu_seconds:8.2f} s processor" for one in outcome.steps]
    lines += [
        f"{outcome.layers} layers, {outcome.files} files, {outcome.size_bytes / 2**20:.0f} MiB packed, "
        f"{outcome.content_bytes / 2**20:.0f} MiB unpacked, {outcome.warm_moved_bytes / 2**10:.1f} KiB moved by the warm build",
        f"layers that differ in the second build: {', '.join(outcome.differing_layers) or 'none'}",
        f"load of the machine at the end: {load:.1f} on {os.cpu_count()} processors",
        *(f"{'met   ' if met else 'MISSED'} {bar}" for bar, met in outcome.bars().items()),
    ]
    sys.stdout.write("\n".join([*lines, ""]))
    if options.json is not None:
        options.json.write_text(json.dumps({**asdict(outcome), "bars": outcome.bars(), "load": load}, indent=2), encoding="utf-8")
    return 0 if all(outcome.bars().values()) else 1


def _tell(what: str) -> None:
    sys.stderr.write(f"… {what}\n")


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    sys.exit(main())
