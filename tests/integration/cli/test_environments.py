"""Apps in environments of their own on a real platform: prepared by the pod's agent, told when broken, back after a crash."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tenacity

from rayline import BlockingClient
from runtime_env.bundle import Bundle
from runtime_env.signing import SigningKey
from runtime_env.store import FolderStore
from tests.integration.cli.conftest import Run
from tests.support.bundles import publish_bundle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

APP = "environed"
# What it answers, and whether anything of the platform is in its process.
CODE = """
import os
import sys

import greeting


def feature(job):
    if job == "die":
        os._exit(3)
    return {
        "greeting": greeting.VERSION,
        "pid": os.getpid(),
        "mine": __file__,
        "workers": sorted(name for name in sys.modules if name.partition(".")[0] in ("workers", "ray")),
        "foreign": sorted(name for name in os.environ if name.startswith("RAY_")),
    }
"""


@dataclass
class Site:
    """A person's project: manifest, store, and the platform that serves it."""

    run: Run
    folder: Path
    scratch: Path
    key: SigningKey

    @property
    def store(self) -> FolderStore:
        return FolderStore(path=self.folder / ".rayline" / "environments")

    def publish(self, version: str, code: str = CODE, *, greeting: str = "1.0", **more: Any) -> Bundle:
        packages = {"greeting": f"VERSION = {greeting!r}\n", **more.pop("packages", {})}
        return publish_bundle(
            self.store, self.scratch, app=APP, version=version, code=code, packages=packages, key=self.key, **more
        )

    def deploy(self, version: str, *, wait: bool = True) -> str:
        app = self.scratch / "manifest"
        app.mkdir(exist_ok=True)
        (app / "feature.py").write_text(CODE)
        (app / "app.yaml").write_text(
            f"name: {APP}\nversion: '{version}'\nentrypoint: feature:feature\npartitions: 1\nactors_per_node: 1\n"
            "resources: {num_cpus: 0.1}\nretries: {kills: 0}\nenv:\n  requirements: [greeting]\n"
        )
        arguments = ["deploy", str(app), "-o", "json", *(["--wait"] if wait else [])]
        deployed: str = self.run(*arguments, timeout_seconds=240).json()["version"]
        return deployed

    def node(self) -> dict[str, Any]:
        (node,) = [one for one in self.run("status", "-o", "json").json()["nodes"] if one["state"] == "ready"]
        return dict(node)

    def answer(self, job: Any = "hello") -> tuple[dict[str, Any], str]:
        """A feature, and the version that it comes from."""
        servers = self.run("status", "-o", "json").json()["bootstrap_servers"]
        with BlockingClient(servers) as client:
            result = client.result(APP, client.submit(APP, job), timeout_seconds=60)
        return result.feature(), result.app_version or ""

    def until(self, condition: Callable[[], bool]) -> None:
        for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_delay(120), reraise=True):
            with attempt:
                assert condition()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def site(platform: Run, folder: Path, scratch: Path, signing_key: SigningKey) -> Site:
    return Site(platform, folder, scratch, signing_key)


def test_without_a_bundle_it_is_told_how_to_make_one(site: Site) -> None:
    app = site.scratch / "unbuilt"
    app.mkdir()
    (app / "feature.py").write_text(CODE)
    (app / "app.yaml").write_text("name: unbuilt\nentrypoint: feature:feature\nenv:\n  requirements: [greeting]\n")
    assert "rayline env build" in site.run("deploy", str(app), expect=1).err


def test_an_app_answers_from_its_own_environment(site: Site) -> None:
    bundle = site.publish("1", greeting="1.0")
    assert site.deploy("1") == f"1+{bundle.digest[7:19]}"
    feature, version = site.answer()
    assert (feature["greeting"], version) == ("1.0", f"1+{bundle.digest[7:19]}")
    assert str(site.folder / ".rayline" / "node" / "unpacked" / "envs") in feature["mine"]
    assert (feature["workers"], feature["foreign"]) == ([], [])
    environments = {one["app"]: one["phase"] for one in site.node()["environments"]}
    assert environments == {APP: "ready"}


def test_what_cannot_be_prepared_is_told_with_a_remedy_while_the_old_version_answers(site: Site) -> None:
    site.publish("2", "import nowhere_to_be_found\n" + CODE)
    broken = site.deploy("2", wait=False)

    told: dict[str, Any] = {}

    def has_failed() -> bool:
        # It is tried again and again: between two looks it may be under way.
        told.update({one["version"]: one for one in site.node()["environments"]})
        return bool(told.get(broken, {}).get("phase") == "failed")

    site.until(has_failed)
    failed = told.pop(broken)
    assert {one["phase"] for one in told.values()} == {"ready"}
    assert "No module named 'nowhere_to_be_found'" in failed["reason"]
    assert "rayline env build" in failed["remedy"]
    assert failed["retry_seconds"] is not None
    feature, version = site.answer()
    assert (feature["greeting"], version.partition("+")[0]) == ("1.0", "1")
    assert "nowhere_to_be_found" in site.run("status").out


def test_a_process_that_dies_comes_back_in_its_environment(site: Site) -> None:
    before, _ = site.answer()
    os.kill(before["pid"], signal.SIGKILL)
    site.until(lambda: site.answer()[0]["pid"] != before["pid"])
    after, _ = site.answer()
    assert (after["greeting"], after["mine"]) == (before["greeting"], before["mine"])


def test_nothing_of_it_is_left_when_it_goes(site: Site) -> None:
    feature, _ = site.answer()
    site.run("undeploy", APP)
    site.until(lambda: not Path(f"/proc/{feature['pid']}").exists())
    site.until(lambda: site.node()["environments"] == [])
