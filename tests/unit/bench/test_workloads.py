"""The bench apps are apps that Rayline accepts, and do what the table says."""

import asyncio
from pathlib import Path

import pytest

from bench.contestants import Heap, write_app
from bench.workloads import features
from rayline.app_spec import BatchFormat, Call
from rayline.manifest import load_manifest


@pytest.mark.parametrize("workload", ["echo", "cpu", "io"])
def test_the_app_of_a_heap_is_a_valid_manifest_under_the_heaps_name(workload: str, tmp_path: Path) -> None:
    heap = Heap(bootstrap_servers="", app=f"bench-{workload}-1", workload=workload, jobs=1, cpu_loops=123)
    write_app(tmp_path / "app", heap)
    spec = load_manifest(tmp_path / "app" / "app.yaml")
    assert (spec.name, spec.batch_format, spec.call) == (heap.app, BatchFormat.ROWS, Call.JOB)
    assert spec.partitions == 8
    assert spec.constructor == ({"loops": 123} if workload == "cpu" else {})
    assert hasattr(features, spec.entrypoint.partition(":")[2])
    assert (tmp_path / "app" / "features.py").exists()


def test_features_return_the_job() -> None:
    job = {"id": 1}
    assert features.echo(job) == features.Cpu(loops=3)(job) == asyncio.run(features.io(job)) == job
