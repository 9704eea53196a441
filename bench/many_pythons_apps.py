"""The apps of `bench.many_pythons`: a folder for each, the bundle that is made of it, and what has to answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.many_pythons_verdict import Expected
from deploy.bundle_choice import with_bundle
from rayline.app_spec import AppSpec
from rayline.manifest import load_manifest
from runtime_env.build import BuildCache, Builder
from runtime_env.build.interpreters import SUPPORTED, find_interpreters
from runtime_env.store import WritableStore, publish

NUMPYS: Final = (("1.26", "numpy>=1.26,<2"), ("2.", "numpy>=2"))
# Of the Pythons that may be here, these have wheels of both.
NUMPY_PYTHONS: Final = ("3.12", "3.11", "3.10")
_FEATURE: Final = Path(__file__).parent / "workloads" / "many_pythons" / "feature.py"
_MANIFEST: Final = """name: {app}
version: '{version}'
entrypoint: feature:feature
partitions: 2
actors_per_node: 1
sla_seconds: 60
resources: {{num_cpus: 0.1}}
env:
  python: '{python}'
  requirements: [{requirements}]
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which apps there are, and which Pythons are not on this machine."""

    apps: tuple[Expected, ...]
    missing: tuple[str, ...]

    @property
    def moving(self) -> Expected | None:
        return next((one for one in self.apps if one.moved_to), None)


def plan_apps(pythons: Sequence[str]) -> Plan:
    """One app for each of these Pythons that uv or pyenv has here, and two with numpy of different ages; the one of the oldest
    Python is to be moved to the newest."""
    here = {one.minor for one in find_interpreters()}
    found = [minor for minor in SUPPORTED if minor in here and minor in pythons]
    newest = found[-1] if len(found) > 1 else ""
    apps = [Expected(f"python-{minor.replace('.', '-')}", minor, "", newest if minor == found[0] else "") for minor in found]
    of_numpy = next((minor for minor in NUMPY_PYTHONS if minor in found), "")
    if of_numpy:
        apps += [Expected(f"numpy-{beginning.split('.')[0]}", of_numpy, beginning) for beginning, _ in NUMPYS]
    return Plan(tuple(apps), tuple(minor for minor in pythons if minor not in here))


class Workshop:
    """Builds the apps' bundles and publishes them. Owns the apps' folders; does not own the cache or the store."""

    def __init__(self, *, folder: Path, cache: BuildCache, store: WritableStore, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._store = store
        self._say = say
        self._builder = Builder(cache=cache)

    def make(self, app: Expected, *, moved: bool = False) -> AppSpec:
        """The app in its bundle, as `rayline deploy` would announce it; `moved`: in the Python that it is moved to.

        Raises EnvError where it cannot be built.
        """
        place = self._folder / app.app
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_FEATURE, place / "feature.py")
        python = app.moved_to if moved else app.python
        asked = [f"'{requirement}'" for beginning, requirement in NUMPYS if beginning == app.numpy]
        manifest = _MANIFEST.format(app=app.app, version=2 if moved else 1, python=python, requirements=", ".join(asked))
        (place / "app.yaml").write_text(manifest, encoding="utf-8")
        spec = load_manifest(place)
        built = self._builder.build(spec)
        publish(self._store, built.bundle, built.blob_paths, key=None)
        mib = built.bundle.size_bytes / 2**20
        self._say(f"{app.app}: Python {built.bundle.python}, {len(built.bundle.layers)} layers, {mib:.0f} MiB")
        return with_bundle(spec, self._store)
