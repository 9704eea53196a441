"""`rayline env verify` checks a bundle as a node would, and shows an app nothing of the platform's secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from rayline.errors import BlobCorrupt, HealthCheckFailed, Unsigned
from runtime_env.store import FolderStore
from runtime_env.store.protocol import blob_path
from tests.support.bundles import publish_bundle

CURIOUS = """
import os

seen = [name for name in os.environ if name.startswith(("RAYLINE_PEERS", "RAYLINE_ENV"))]
assert not seen, seen


def feature(job):
    return job
"""


def verify(store: FolderStore, *arguments: str) -> dict[str, object]:
    command = ["env", "verify", "app", "--store", store.url, "-o", "json", *arguments]
    answer = CliRunner().invoke(app, command, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return dict(json.loads(answer.stdout))


def test_the_entrypoint_is_imported_without_the_platforms_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLINE_PEERS_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("RAYLINE_ENV_KEY", "/keys/signer")
    store = FolderStore(path=tmp_path / "store")
    publish_bundle(store, tmp_path, app="app", version="1", code=CURIOUS, packages={})
    assert verify(store, "--full", "--dev")["in_order"]


def test_what_a_node_would_refuse_is_refused(tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    bundle = publish_bundle(store, tmp_path, app="app", version="1", code="import gone\n", packages={})
    with pytest.raises(Unsigned):
        verify(store)
    with pytest.raises(HealthCheckFailed, match="No module named 'gone'"):
        verify(store, "--dev", "--full")
    stored = tmp_path / "store" / blob_path(bundle.layers[1].digest)
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(BlobCorrupt):
        verify(store, "--dev")
