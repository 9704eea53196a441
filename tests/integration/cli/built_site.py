"""Apps as a person has them in folders, with a wheel, a native library and a model, and without; how they are built, deployed and
asked by the command line and a client."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tenacity

from deploy.status import read_status
from rayline import BlockingClient
from rayline.results import Result
from runtime_env.bundle import Bundle, hex_of
from runtime_env.signing import SigningKey
from runtime_env.store import FolderStore
from tests.integration.cli.conftest import Run
from tests.support.packages import CountingIndex

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NATIVE = """
import ctypes
import os
import sys

import measure

LIBRARY = ctypes.CDLL("libanswer.so")


class Native:
    def __init__(self):
        with open(os.environ["RAYLINE_MODEL_LEVEL"]) as file:
            self._level = int(file.read())

    def __call__(self, job):
        if job != "where":
            return LIBRARY.answer() * job + self._level
        with open("/proc/self/maps") as maps:
            mapped = {line.partition("/envs/")[2].partition("/")[0] for line in maps if "/envs/" in line}
        return {
            "python": sys.version,
            "prefix": sys.prefix,
            "libraries": os.environ["LD_LIBRARY_PATH"].split(":"),
            "mapped": sorted(mapped),
            "paths": [path for path in sys.path if "/envs/" in path],
            "answer": LIBRARY.answer(),
            "measure": measure.__version__,
            "only_b": os.environ.get("ONLY_B"),
            "pid": os.getpid(),
        }
"""
NEIGHBOUR = """
import ctypes
import importlib.util
import os
import sys


def feature(job):
    try:
        library = str(ctypes.CDLL("libanswer.so").answer())
    except OSError as error:
        library = str(error)
    return {
        "library": library,
        "libraries": os.environ.get("LD_LIBRARY_PATH", "").split(":"),
        "models": [name for name in os.environ if name.startswith("RAYLINE_MODEL")],
        "measure": importlib.util.find_spec("measure") is not None,
        "prefix": sys.prefix,
        "pid": os.getpid(),
    }
"""
MANIFEST = """name: {name}
version: '{version}'
entrypoint: feature:{function}
partitions: 1
actors_per_node: 1
sla_seconds: 60
resources: {{num_cpus: 0.1}}
env:
  python: '{python}'
{env}"""
MODELS = "model_swap: instance\nmodels: [{name: level, source: level.txt}]\n"


@dataclass
class Site:
    """A person's apps, the index that they are built from, and the platform that runs them."""

    run: Run
    folder: Path
    apps: Path
    index: CountingIndex
    key: SigningKey
    client: BlockingClient
    bundles: dict[str, Bundle] = field(default_factory=dict)

    @property
    def store(self) -> FolderStore:
        return FolderStore(path=self.folder / ".rayline" / "environments")

    def status(self) -> dict[str, Any]:
        """What `rayline status -o json` prints, without a process for each look."""
        return asyncio.run(read_status(self.folder / ".rayline", None)).as_dict()

    def node(self) -> str:
        (node,) = [one["node"] for one in self.status()["nodes"] if one["state"] == "ready"]
        return str(node)

    def environments(self) -> list[dict[str, Any]]:
        return [environment for node in self.status()["nodes"] for environment in node["environments"]]

    def write(self, name: str, *, app: str, version: str, code: str, env: str, models: str = "") -> None:
        folder = self.apps / name
        folder.mkdir()
        (folder / "feature.py").write_text(code)
        (folder / "level.txt").write_text("1000")
        function = "Native" if "class Native" in code else "feature"
        (folder / "app.yaml").write_text(
            MANIFEST.format(name=app, version=version, function=function, python=PYTHON, env=env) + models
        )

    def write_native(self, name: str, *, version: str, answer: int, env: str) -> None:
        self.write(name, app="native", version=version, code=NATIVE, env=f"  libraries: [vendor]\n{env}", models=MODELS)
        vendor = self.apps / name / "vendor"
        vendor.mkdir()
        (self.apps / name / "answer.c").write_text(f"int answer(void) {{ return {answer}; }}\n")
        subprocess.run(["gcc", "-shared", "-o", vendor / "libanswer.so", "answer.c"], cwd=self.apps / name, check=True)

    def build(self, name: str) -> None:
        """By the command line, as `app.yaml` beside it says; the index is no other than the one here."""
        builds = {"RAYLINE_ENV_CACHE": str(self.apps / "builds"), "UV_CACHE_DIR": str(self.apps / "uv")}
        no_other = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_INDEX_URL": self.index.url}
        built = self.run("env", "build", str(self.apps / name), "-o", "json", more={**builds, **no_other}, timeout_seconds=300)
        assert built.json()["signed_by"] == [self.key.name]
        self.bundles[name] = self.store.get_manifest(f"{built.json()['app']}@{built.json()['counter']}").bundle

    def deploy(self, name: str, *arguments: str) -> None:
        self.run("deploy", str(self.apps / name), *arguments, timeout_seconds=240)

    def version(self, name: str) -> str:
        bundle = self.bundles[name]
        return f"{bundle.app_version}+{hex_of(bundle.digest)[:12]}"

    def root(self, name: str) -> Path:
        return self.folder / ".rayline" / "node" / "unpacked" / "envs" / hex_of(self.bundles[name].digest)

    def result(self, app: str, job: Any = "where") -> Result:
        return self.client.result(app, self.client.submit(app, job), timeout_seconds=90)

    def until_answered_by(self, name: str, job: Any = "where") -> Any:
        """The first feature that this version makes."""
        app = self.bundles[name].app
        for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_delay(120), reraise=True):
            with attempt:
                result = self.result(app, job)
                assert result.app_version == self.version(name)
        return result.feature()

    def until(self, condition: Callable[[], bool]) -> None:
        for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.5), stop=tenacity.stop_after_delay(120), reraise=True):
            with attempt:
                assert condition()
