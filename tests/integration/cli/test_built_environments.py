"""Apps as `rayline env build` makes them, signed, on a real platform that is none of development: a Python of their own, a wheel,
a native library and a model; from one to another on one node, ahead of time, back, and past broken ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayline import BlockingClient
from rayline.rollout import SHARE, place_of
from runtime_env.build.interpreters import find_interpreters
from runtime_env.bundle import Bundle, Host, LayerKind
from runtime_env.process_environment import process_environment, python_of
from runtime_env.signing import SigningKey
from runtime_env.store import publish
from runtime_env.store.protocol import blob_path
from tests.integration.cli.built_site import NATIVE, NEIGHBOUR, PYTHON, Site
from tests.integration.cli.conftest import Run, with_platform
from tests.support.installed_wheels import write_installed_wheels
from tests.support.layers import packed_layer
from tests.support.packages import serve_index, write_wheel

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="makes a native library"),
    pytest.mark.skipif(
        PYTHON not in {one.minor for one in find_interpreters()},
        reason="no interpreter here that can be copied: uv python install",
    ),
]

JOBS = range(5)


@pytest.fixture(scope="module")
def site(command_line: Run, folder: Path, signing_key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Both versions of one app, and another app, built and signed; the first version runs."""
    apps = tmp_path_factory.mktemp("apps")
    write_installed_wheels(apps / "wheels", ["pyarrow", "msgpack", "opentelemetry-sdk"])
    for version in ("1.0", "2.0"):
        write_wheel(apps / "wheels", "measure", version)
    run = with_platform(command_line, folder)
    servers = run("status", "-o", "json").json()["bootstrap_servers"]
    with serve_index(apps / "wheels") as index, BlockingClient(servers) as client:
        made = Site(run, folder, apps, index, signing_key, client)
        made.write_native("a", version="1", answer=41, env="  requirements: [measure==1.0]\n")
        made.write_native("b", version="2", answer=43, env="  requirements: [measure==2.0]\n  variables: {ONLY_B: b}\n")
        made.write("neighbour", app="neighbour", version="1", code=NEIGHBOUR, env="  requirements: []\n")
        made.build("a")
        made.build("neighbour")
        index.requests.clear()
        made.deploy("a", "--wait")
        yield made
        for app in {one["app"] for one in made.status()["apps"]} & {"native", "neighbour"}:
            run("undeploy", app)


def is_a_alone(site: Site, facts: Mapping[str, Any]) -> bool:
    """Nothing of B is in A's process: not its library, packages, variables, nor anything that is mapped or on a path."""
    root = site.root("a")
    assert facts["prefix"] == str(root)
    assert facts["libraries"][0] == str(root / "native" / "lib")
    assert (facts["answer"], facts["measure"], facts["only_b"]) == (41, "1.0", None)
    assert facts["mapped"] == [root.name]
    assert {Path(path).is_relative_to(root) for path in facts["paths"]} == {True}
    return True


def test_it_answers_from_its_own_python_and_library_and_no_node_asked_an_index(site: Site) -> None:
    facts = site.until_answered_by("a")
    assert is_a_alone(site, facts)
    assert facts["python"].split()[0] == site.bundles["a"].python
    assert site.index.requests == []


def run_directly(python: Path | str, folder: Path, environment: Mapping[str, str]) -> Any:
    program = f"import json, feature\none = feature.Native()\nprint(json.dumps([one(job) for job in {list(JOBS)}]))"
    done = subprocess.run([python, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_users_class_gives_equal_results_when_called_directly_in_its_environment_and_through_kafka(site: Site) -> None:
    root, here = site.root("a"), site.apps / "a"
    laptop = {
        "PYTHONPATH": str(site.apps / "wheels" / "measure-1.0-py3-none-any.whl"),
        "LD_LIBRARY_PATH": str(here / "vendor"),
        "RAYLINE_MODEL_LEVEL": str(here / "level.txt"),
    }
    environment = process_environment(root, site.bundles["a"], {"PATH": "/usr/bin:/bin"})
    results = [site.result("native", job) for job in JOBS]
    assert {result.app_version for result in results} == {site.version("a")}
    through_kafka = [result.feature() for result in results]
    assert through_kafka == run_directly(python_of(root), root / "app", environment)
    assert through_kafka == run_directly(sys.executable, here, laptop)
    assert through_kafka == [41 * job + 1000 for job in JOBS]


def test_one_node_goes_from_one_app_to_another_and_back_and_neither_sees_the_other(site: Site) -> None:
    node, before = site.node(), site.until_answered_by("a")
    seconds = {}

    def switch(gone: str, name: str) -> Any:
        began = time.monotonic()
        site.run("undeploy", gone)
        site.deploy(name)
        feature = site.until_answered_by(name)
        seconds[f"{gone} to {name}"] = round(time.monotonic() - began, 1)
        return feature

    def sees_nothing_of_it(facts: Mapping[str, Any]) -> bool:
        assert "libanswer.so: cannot open shared object file" in facts["library"]
        assert not any("native" in path for path in facts["libraries"])
        assert (facts["models"], facts["measure"], facts["prefix"]) == ([], False, str(site.root("neighbour")))
        return True

    other = switch("native", "neighbour")
    assert sees_nothing_of_it(other)
    site.until(lambda: not Path(f"/proc/{before['pid']}").exists())
    again = switch("neighbour", "a")
    assert is_a_alone(site, again)
    site.until(lambda: not Path(f"/proc/{other['pid']}").exists())
    print(f"from one app to another on one node, with commands, to the first result (s): {seconds}")  # noqa: T201
    site.deploy("neighbour")
    assert sees_nothing_of_it(site.until_answered_by("neighbour"))
    assert is_a_alone(site, site.until_answered_by("a"))
    assert {site.result("native").node, site.result("neighbour").node} == {node.partition("/")[2]}
    assert site.node() == node, "all of it on one pod, without a new one"


def test_a_model_that_is_rolled_back_answers_again_in_the_same_process(site: Site) -> None:
    def answered(model: str, level: int) -> int:
        """The generation that answers: as soon as the command returns, no job sees another."""
        result = site.result("native", 1)
        assert result.feature() == 41 + level
        generation, _, publication = (result.model_version or "").partition(":")
        assert publication == model
        return int(generation)

    pid = site.until_answered_by("a")["pid"]
    generations = []
    for number, level in enumerate((2000, 3000), start=1):
        (site.apps / "level").write_text(str(level))
        site.run("model", "publish", "native", "level", str(site.apps / "level"))
        site.run("model", "use", "native", f"level@{number}", "--wait")
        generations.append(answered(f"level@{number}", level))
    site.run("model", "rollback", "native", "--wait")
    generations.append(answered("level@1", 2000))
    site.run("model", "use", "native", "level@bundle", "--wait")
    generations.append(answered("bundle", 1000))
    assert generations == sorted(set(generations))
    assert site.result("native").feature()["pid"] == pid


def test_a_bundle_that_was_prefetched_is_taken_without_the_store_and_left_without_a_trace(site: Site) -> None:
    site.build("b")
    site.deploy("b", "--prefetch")
    wanted = {"app": "native", "version": "(prefetched)", "phase": "ready"}
    site.until(lambda: any(wanted.items() <= one.items() for one in site.environments()))
    assert is_a_alone(site, site.until_answered_by("a"))
    blobs = site.store.url + "/blobs"
    Path(blobs).rename(blobs + ".away")
    try:
        above = (place_of("native", site.node()) + 1) / 2
        site.deploy("b", "--share", str(above), "--wait")
        facts = site.until_answered_by("b")
        assert (facts["answer"], facts["measure"], facts["only_b"]) == (43, "2.0", "b")
        assert facts["mapped"] == [site.root("b").name]
        site.run("config", "set", f"app/native/{SHARE}", "0", "--wait")
        assert is_a_alone(site, site.until_answered_by("a"))
        site.until(lambda: not Path(f"/proc/{facts['pid']}").exists())
        site.run("config", "set", f"app/native/{SHARE}", "1", "--wait")
        assert site.until_answered_by("b")["answer"] == 43
    finally:
        Path(blobs + ".away").rename(blobs)


def test_the_version_before_published_again_is_a_roll_back(site: Site) -> None:
    pid = site.until_answered_by("b")["pid"]
    assert "rayline env publish" in site.run("deploy", str(site.apps / "a"), expect=1).err
    site.run("env", "publish", "native@1")
    site.deploy("a")
    assert is_a_alone(site, site.until_answered_by("a"))
    site.until(lambda: not Path(f"/proc/{pid}").exists())


def altered(site: Site, version: str, **changes: Any) -> Bundle:
    """A bundle like A, whose app layer no node has."""
    tree = site.apps / f"tree-{version}"
    (tree / "app").mkdir(parents=True)
    (tree / "app" / "feature.py").write_text(f"{NATIVE}\n# {version}\n")
    layer, blob = packed_layer(tree, site.apps / "altered", name="app", kind=LayerKind.APP)
    kept = [one for one in site.bundles["a"].layers if one.kind is not LayerKind.APP]
    key = changes.pop("key", site.key)
    bundle = replace(site.bundles["a"], app_version=version, layers=(*kept, layer), **changes)
    publish(site.store, bundle, {layer.digest: blob}, key=key)
    return bundle


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def missing(site: Site) -> Bundle:
    bundle = altered(site, "missing")
    site.store.delete_blob(bundle.layers[-1].digest)
    return bundle


def corrupt(site: Site) -> Bundle:
    bundle = altered(site, "corrupt")
    flip_a_byte(Path(site.store.url, blob_path(bundle.layers[-1].digest)))
    return bundle


BROKEN: dict[str, tuple[Callable[[Site], Bundle], str, str]] = {
    "missing": (missing, "has no blob sha256:", "publish the bundle to the store that nodes read"),
    "corrupt": (corrupt, "holds other bytes than the manifest says", "publish the bundle again"),
    "wrong architecture": (
        lambda site: altered(site, "foreign", host=Host("linux", "s390x", "glibc", (2, 17))),
        "was built for linux/s390x",
        "build the bundle on a machine of this node's kind",
    ),
    "unsigned": (lambda site: altered(site, "unsigned", key=None), "is not signed", "sign it: `rayline env build --key`"),
}


def test_what_is_missing_corrupt_foreign_or_unsigned_is_told_and_never_runs_while_both_apps_answer(site: Site) -> None:
    for app, name in (("native", "a"), ("neighbour", "neighbour")):
        assert site.result(app).app_version == site.version(name)
    for make, reason, remedy in BROKEN.values():
        bundle = make(site)
        on_its_way = site.client.submit("native", 7)
        site.deploy("a", "--bundle", f"native@{bundle.digest}")
        told: dict[str, Any] = {}

        def has_failed(version: str = bundle.app_version, told: dict[str, Any] = told) -> bool:
            # It is tried again and again: between two looks it may be under way.
            for one in site.environments():
                if one["version"].partition("+")[0] == version and one["phase"] == "failed":
                    told.update(one)
            return bool(told)

        site.until(has_failed)
        assert reason in told["reason"]
        assert remedy in told["remedy"]
        assert site.client.result("native", on_its_way, timeout_seconds=60).app_version == site.version("a")
        assert site.result("native", 1).feature() == 1041
        assert site.result("neighbour").app_version == site.version("neighbour")
    answered = {result.app_version for result in site.client.results("native", from_beginning=True, follow=False)}
    assert answered == {site.version("a"), site.version("b")}
    site.run("env", "publish", f"native@{site.bundles['a'].digest}")
    site.deploy("a")
    site.until(lambda: {one["phase"] for one in site.environments()} == {"ready"})
    assert is_a_alone(site, site.until_answered_by("a"))
