"""An app's process and its host: one waits for the environment, serves from it, and neither outlives the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tenacity

from rayline.app_spec import AppSpec
from rayline.engines import Chosen
from runtime_env.bundle import Bundle
from runtime_env.node.folder import NodeFolder
from runtime_env.node.source import StoreSource
from runtime_env.store import FolderStore
from tests.support.bundles import publish_bundle
from workers.host_actor import EXIT_CODE
from workers.pod_environments import PodEnvironment, write_environment
from workers.pod_folder import POD_DIR_VARIABLE

# A host ends its whole process with its child, and dies with its parent: it gets a process of its own.
_HOST = """
import json, sys
from workers.host_actor import HostActor
host = HostActor(**json.loads(sys.argv[1]))
for line in sys.stdin:
    print(json.dumps(getattr(host, line.strip())()), flush=True)
"""
CODE = "import os\nimport greeting\n\n\ndef feature(job):\n    return greeting.VERSION\n"


class Hosted:
    """A host in a process of its own, on a node with the app's bundle."""

    def __init__(self, path: Path) -> None:
        self.pod_dir = path / "pod"
        self.pod_dir.mkdir()
        self.folder = NodeFolder(path=path / "node", quota_bytes=2**30)
        self.bundle = self._place(path)
        spec = AppSpec("app", "1", "/nowhere", "feature:feature", bundle=self.bundle.digest)
        given = {"spec": spec.as_dict(), "token": "t", "name": "n", "host": "127.0.0.1", "attempt": "a"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HOST, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, POD_DIR_VARIABLE: str(self.pod_dir), "RAY_ADDRESS": "elsewhere"},
            text=True,
        )

    def _place(self, path: Path) -> Bundle:
        store = FolderStore(path=path / "store")
        packages = {"greeting": "VERSION = 'hello'\n"}
        bundle = publish_bundle(store, path / "scratch", app="app", version="1", code=CODE, packages=packages)
        self.folder.place(bundle, StoreSource(store=store, cache=self.folder.blobs).fetch(bundle.layers, lambda _: None))
        return bundle

    def tell(self, phase: str, **more: Any) -> None:
        write_environment(self.pod_dir, PodEnvironment(self.bundle.digest, phase, **more))

    def tell_ready(self) -> None:
        digest = self.bundle.digest
        root, lease = str(self.folder.environment(digest)), str(self.folder.lease_file(digest))
        self.tell("ready", root=root, lease=lease, engine=asdict(Chosen("fake", "FakeProvider", "Card 9")))

    def ask(self, method: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{method}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def serving(self) -> dict[str, Any]:
        self.tell_ready()
        for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(60), reraise=True):
            with attempt:
                endpoint: dict[str, Any] = self.ask("endpoint")
                assert endpoint["port"]
        return endpoint


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[Hosted]:
    made = Hosted(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    for pipe in (made.process.stdin, made.process.stdout):
        assert pipe is not None
        pipe.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until_gone(pid: int) -> None:
    for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.05), stop=tenacity.stop_after_delay(30), reraise=True):
        with attempt:
            assert gone(pid)


def test_it_waits_and_says_why_until_the_environment_is_there(hosted: Hosted) -> None:
    waiting = hosted.ask("endpoint")
    assert (waiting["waiting"], waiting["port"], waiting["reason"]) == (True, 0, None)
    assert hosted.ask("statistics") == {}
    hosted.tell("failed", reason="no room left", remedy="make room")
    for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(30), reraise=True):
        with attempt:
            waiting = hosted.ask("endpoint")
            assert "no room left (make room)" in (waiting["reason"] or "")
    assert waiting["waiting"], "the agent tries again: nobody has to place another actor"
    assert not hosted.folder.is_leased(hosted.bundle.digest)


def test_it_serves_from_the_bundle_and_leases_it(hosted: Hosted) -> None:
    endpoint = hosted.serving()
    assert (endpoint["app"], endpoint["version"], endpoint["reason"]) == ("app", "1", None)
    assert endpoint["pid"] != hosted.process.pid
    variables = Path(f"/proc/{endpoint['pid']}/environ").read_bytes().split(b"\0")
    assert not [one for one in variables if one.startswith(b"RAY_")]
    assert {b"RAYLINE_ENGINE=fake", b"RAYLINE_PROVIDER=FakeProvider", b"RAYLINE_CARD=Card 9"} <= set(variables)
    data = hosted.pod_dir / "data" / "app"
    assert {f"TMPDIR={data}/tmp".encode(), f"XDG_CACHE_HOME={data}/cache".encode()} <= set(variables)
    assert {path.name for path in data.iterdir() if path.is_dir()} == {"tmp", "cache"}
    assert hosted.ask("statistics")["jobs"] == 0
    assert hosted.folder.is_leased(hosted.bundle.digest)
    hosted.process.kill()
    hosted.process.wait()
    until_gone(endpoint["pid"])
    assert not hosted.folder.is_leased(hosted.bundle.digest)


def test_a_host_ends_with_the_process_it_hosts_so_that_ray_starts_both_again(hosted: Hosted) -> None:
    os.kill(hosted.serving()["pid"], signal.SIGKILL)
    assert hosted.process.wait(30) == EXIT_CODE
