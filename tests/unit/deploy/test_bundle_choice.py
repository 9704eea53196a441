"""An app is deployed in a bundle of exactly its version, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.bundle_choice import needs_bundle, with_bundle
from rayline.app_spec import AppSpec, Environment, Requirement
from rayline.errors import NotInStore, RolledBack
from runtime_env.bundle import Bundle
from runtime_env.store import FolderStore, publish
from tests.support.layers import bundle_of, packed_layer

SPEC = AppSpec("app", "1.0", "/apps/app", "feature:f")


def published(store: FolderStore, folder: Path, version: str, content: str) -> Bundle:
    tree = folder / content
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "file").write_text(content)
    layer, blob = packed_layer(tree, folder / "blobs", name=content)
    bundle = replace(bundle_of(layer, version=version), variables={"MODE": content})
    publish(store, bundle, {layer.digest: blob}, key=None)
    return bundle


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(path=tmp_path / "store")


def test_only_what_asks_for_an_environment_needs_a_bundle() -> None:
    assert not needs_bundle(replace(SPEC, env={"A": "1"}))
    assert needs_bundle(replace(SPEC, environment=Environment(requirements=(Requirement("numpy", "app.yaml:3"),))))


def test_the_newest_bundle_of_the_version_is_taken_and_named_in_it(store: FolderStore, tmp_path: Path) -> None:
    published(store, tmp_path, "1.0", "first")
    second = published(store, tmp_path, "1.0", "second")
    chosen = with_bundle(SPEC, store)
    assert (chosen.bundle, chosen.env) == (second.digest, {"MODE": "second"})
    assert chosen.version == f"1.0+{second.digest[7:19]}"
    assert AppSpec.from_dict(chosen.as_dict()) == chosen


def test_another_build_of_one_version_is_another_version(store: FolderStore, tmp_path: Path) -> None:
    published(store, tmp_path, "1.0", "first")
    before = with_bundle(SPEC, store).version
    published(store, tmp_path, "1.0", "second")
    assert with_bundle(SPEC, store).version != before


def test_without_a_bundle_of_the_version_the_way_to_one_is_told(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(NotInStore, match="rayline env build /apps/app"):
        with_bundle(SPEC, store)
    published(store, tmp_path, "0.9", "older")
    with pytest.raises(NotInStore, match=r"no bundle of app 1\.0"):
        with_bundle(SPEC, store)


def test_an_older_publication_is_refused_before_nodes_have_to(store: FolderStore, tmp_path: Path) -> None:
    first = published(store, tmp_path, "1.0", "first")
    published(store, tmp_path, "2.0", "second")
    with pytest.raises(RolledBack, match="rayline env publish app@1"):
        with_bundle(SPEC, store)
    publish(store, first, {}, key=None)
    assert with_bundle(SPEC, store).bundle == first.digest


def test_a_bundle_can_be_named_if_it_is_the_apps_own(store: FolderStore, tmp_path: Path) -> None:
    first = published(store, tmp_path, "0.9", "first")
    assert with_bundle(SPEC, store, "app@1").bundle == first.digest
    assert with_bundle(SPEC, store, f"app@{first.digest[:20]}").version.startswith("0.9+")
    with pytest.raises(NotInStore, match="is a bundle of other"):
        with_bundle(SPEC, store, "other@1")
