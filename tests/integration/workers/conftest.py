from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec
from tests.integration.workers.cluster_under_test import ClusterUnderTest
from workers.sessions import session_members


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    """One head with the pod `p1` of 2 CPUs, for all tests; nothing of it may be left."""
    running = ClusterUnderTest(tmp_path_factory.mktemp("cluster"))
    sessions = [running.head.pid]
    try:
        running.start_pod("p1", cpus=2)
        yield running
    finally:
        sessions += [pod.process.pid for pod in running.pods.values()]
        running.close()
    assert [pid for session in sessions for pid in session_members(session)] == []


@pytest.fixture
def write_app(tmp_path: Path) -> Callable[..., AppSpec]:
    """Write `feature.py` into a folder of its own and return its spec."""

    def write(name: str, source: str, **fields: object) -> AppSpec:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        (root / "feature.py").write_text(textwrap.dedent(source))
        given = {"version": "v1", "entrypoint": "feature:feature", "actors_per_node": 1, **fields}
        return AppSpec(name=name, root=str(root), **given)  # type: ignore[arg-type]

    return write
