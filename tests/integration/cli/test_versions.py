"""Two versions of an app side by side on a real platform: on nodes of their own, each with its share of the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity

from rayline import BlockingClient
from rayline.rollout import place_of
from tests.integration.cli.conftest import Run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

APP = "versioned"
MANIFEST = """
name: versioned
version: '{version}'
entrypoint: feature:feature
partitions: 1
actors_per_node: 1
resources: {{num_cpus: 0.1}}
scheduling: {{policy: static}}
batching: {{linger_ms: 1}}
"""


def write_app(folder: Path, version: str) -> str:
    """Each version's code in a folder of its own; returns that."""
    folder.mkdir()
    (folder / "feature.py").write_text(f"def feature(job):\n    return {version!r}\n")
    (folder / "app.yaml").write_text(MANIFEST.format(version=version))
    return str(folder)


def nodes_of(run: Run) -> list[str]:
    return [node["node"] for node in run("status", "-o", "json").json()["nodes"] if node["state"] == "ready"]


def versions(run: Run) -> dict[str, int]:
    """How many nodes each version of the app has."""
    (app,) = [one for one in run("status", "-o", "json").json()["apps"] if one["app"] == APP]
    return {row["version"]: row["nodes"] for row in app["versions"]}


def answered(client: BlockingClient, jobs: int) -> Counter[str]:
    """Which versions answer so many jobs, one after the other; what a job says is what its result names."""
    found: Counter[str] = Counter()
    for number in range(jobs):
        result: Any = client.result(APP, client.submit(APP, number), timeout_seconds=30)
        assert result.feature() == result.app_version
        found[result.app_version] += 1
    return found


def until(condition: Callable[[], bool]) -> None:
    for attempt in tenacity.Retrying(wait=tenacity.wait_fixed(1), stop=tenacity.stop_after_delay(90), reraise=True):
        with attempt:
            assert condition()


@pytest.fixture
def two_pods(platform: Run) -> Iterator[Run]:
    """The platform with a second pod."""
    cluster = nodes_of(platform)[0].partition("/")[0]
    platform("scale", cluster, "--pods", "2")
    yield platform
    platform("undeploy", APP)
    platform("scale", cluster, "--pods", "1")


def test_a_canary_gets_its_share_then_all_the_work_and_then_all_the_nodes(two_pods: Run, tmp_path: Path) -> None:
    run = two_pods
    run("deploy", write_app(tmp_path / "one", "1"), "--wait", timeout_seconds=240)
    until(lambda: versions(run) == {"1": 2})
    first, second = sorted(place_of(APP, node) for node in nodes_of(run))
    between = f"{(first + second) / 2:.6f}"

    deployed = run("deploy", write_app(tmp_path / "two", "2"), "--share", between, "--wait", "-o", "json", timeout_seconds=240)
    assert (deployed.json()["previous"], len(deployed.json()["ready_nodes"])) == ("1", 1)
    until(lambda: versions(run) == {"2": 1, "1": 1})
    assert "2 belongs on 1 of 2 nodes" in run("status").out

    with BlockingClient(run("status", "-o", "json").json()["bootstrap_servers"]) as client:
        run("config", "set", f"app/{APP}/traffic.version_weights", '{"2": 0.25}', "--wait")
        canary = answered(client, 40)
        assert 4 <= canary["2"] <= 12, f"a fifth was to go to the canary: {canary}"
        run("config", "set", f"app/{APP}/traffic.version_weights", "1=0", "--wait")
        assert answered(client, 8) == {"2": 8}
        run("config", "set", f"app/{APP}/rollout.share", "1", "--wait")
        until(lambda: versions(run).get("2") == 2)
        assert answered(client, 8) == {"2": 8}
