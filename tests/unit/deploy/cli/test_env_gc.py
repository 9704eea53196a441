"""`rayline env gc` never takes away what the platform runs, or is to run next, and says where it could not look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from rayline.app_spec import AppSpec
from runtime_env.store import FolderStore, publish
from tests.support.layers import bundle_of, packed_layer
from tests.support.registry import registry_of


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """Five publications of one app."""
    store = FolderStore(path=tmp_path / "store")
    for number in range(1, 6):
        tree = tmp_path / str(number)
        tree.mkdir()
        (tree / "file").write_text(str(number))
        layer, blob = packed_layer(tree, tmp_path / "blobs", name=str(number))
        publish(store, bundle_of(layer), {layer.digest: blob}, key=None)
    return store


def collect(store: FolderStore, tmp_path: Path, *arguments: str) -> tuple[dict[str, object], str]:
    command = ["env", "gc", "--keep", "1", "--store", store.url, "--state-dir", str(tmp_path / "state"), "-o", "json"]
    answer = CliRunner().invoke(app, [*command, *arguments], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout), answer.stderr


def test_what_is_deployed_or_prefetched_stays(store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (entry.digest for entry in store.entries()[:3])
    before = AppSpec("app", "v1", "/", "feature:f", bundle=first)
    deployed = AppSpec("app", "v3", "/", "feature:f", bundle=third, prefetch=second, previous=before)
    known = {"app": deployed, "plain": AppSpec("plain", "1", "/", "feature:f")}
    monkeypatch.setattr("deploy.app_registry.AppRegistry", registry_of(lambda: known))
    gone, told = collect(store, tmp_path, "--bootstrap-servers", "127.0.0.1:9")
    assert (gone["blobs"], "not looked at" in told) == (1, False)
    assert [entry.counter for entry in store.entries()] == [1, 2, 3, 5]


def test_where_no_platform_is_known_that_is_said(store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYLINE_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    gone, told = collect(store, tmp_path)
    assert (gone["blobs"], "what it runs is not looked at" in told) == (4, True)
    assert [entry.counter for entry in store.entries()] == [5]
