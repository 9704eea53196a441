"""From a store to a folder that runs: each step told, what is broken refused with reason and remedy, the old left as it was."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from rayline.errors import (
    ArchiveBomb,
    BlobCorrupt,
    BlobTruncated,
    DiskFull,
    EnvError,
    HardLinkInside,
    HealthCheckFailed,
    LinkEscape,
    NotInStore,
    PathEscape,
    RolledBack,
    SignatureWrong,
    SpecialFile,
    StoreError,
    Unsigned,
    WrongPlatform,
)
from runtime_env.bundle import Bundle, Host, hex_of
from runtime_env.node.activation import Phase, Wanted
from runtime_env.node.folder import NodeFolder
from runtime_env.node.preparing import Preparer, failure_of
from runtime_env.node.source import StoreSource
from runtime_env.signing import SigningKey, Trust
from runtime_env.store import FolderStore, publish
from runtime_env.store.protocol import blob_path
from tests.support.layers import Member, archive, bundle_of, layer_of, member, packed_layer, symlink

STEPS = [Phase.VERIFYING, Phase.UNPACKING, Phase.CHECKING]


@dataclass
class Site:
    """A store, a key that is trusted, and a node."""

    path: Path
    key: SigningKey
    store: FolderStore
    folder: NodeFolder
    sick: set[str] = field(default_factory=set)
    phases: list[Phase] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)

    def publish(self, version: str, *, key: SigningKey | None = None, unsigned: bool = False) -> Bundle:
        tree = self.path / "trees" / version
        (tree / "app").mkdir(parents=True, exist_ok=True)
        (tree / "app" / "feature.py").write_text(f"VERSION = {version!r}\n")
        layer, blob = packed_layer(tree, self.path / "built", name=version)
        bundle = bundle_of(layer, version=version)
        publish(self.store, bundle, {layer.digest: blob}, key=None if unsigned else key or self.key)
        return bundle

    def offer(self, *members: Member, files: int = 1000, host: Host | None = None) -> Bundle:
        """A signed publication that is honest about an archive of these members, or about another machine."""
        layer, blob = layer_of(archive([member("app/feature.py", b"new"), *members]), self.path / "built", files=files)
        bundle = bundle_of(layer, version="v2", host=host)
        publish(self.store, bundle, {layer.digest: blob}, key=self.key)
        return bundle

    def damage(self, bundle: Bundle, change: Callable[[bytes], bytes]) -> Bundle:
        """Change what the store holds of a bundle's one layer."""
        stored = self.path / "store" / blob_path(bundle.layers[0].digest)
        data = stored.read_bytes()
        stored.chmod(0o644)
        stored.write_bytes(change(data))
        return bundle

    def preparer(self, *, development: bool = False) -> Preparer:
        trust_file = self.path / "trust"
        trust_file.write_text(f"ed25519 {self.key.public} ci\n")
        return Preparer(
            folder=self.folder,
            store=self.store,
            source=StoreSource(store=self.store, cache=self.folder.blobs),
            trust=Trust.read(trust_file, development=development),
            check=self.check,
        )

    def check(self, root: Path, bundle: Bundle) -> None:
        assert (root / "app" / "feature.py").is_file()
        if bundle.app_version in self.sick:
            raise HealthCheckFailed("cannot be loaded")

    def prepare(self, bundle: Bundle, preparer: Preparer | None = None, *, back: bool = False) -> str:
        self.phases.clear()
        self.progress.clear()
        made = (preparer or self.preparer()).prepare(
            Wanted("app", bundle.app_version, bundle.digest, back=back),
            self.phases.append,
            lambda *bytes_: self.progress.append(bytes_),
        )
        return (made.root / "app" / "feature.py").read_text()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(
        tmp_path,
        SigningKey.generate(tmp_path / "key"),
        FolderStore(path=tmp_path / "store"),
        NodeFolder(path=tmp_path / "node", quota_bytes=2**30),
    )


def test_each_step_is_told_and_bytes_are_counted(site: Site) -> None:
    bundle = site.publish("v1")
    assert site.prepare(bundle) == "VERSION = 'v1'\n"
    assert site.phases == STEPS
    assert site.progress == [(0, bundle.size_bytes), (bundle.size_bytes, bundle.size_bytes)]


def test_what_is_here_needs_no_store(site: Site) -> None:
    bundle = site.publish("v1")
    site.prepare(bundle)
    shutil.rmtree(site.path / "store")
    assert site.prepare(bundle) == "VERSION = 'v1'\n"
    assert site.phases == STEPS
    assert site.progress == []


def test_the_version_that_the_deployment_itself_keeps_may_be_older_than_what_was_used_and_nothing_else(site: Site) -> None:
    a, b = site.publish("a"), site.publish("b")
    site.prepare(b)
    with pytest.raises(RolledBack):
        site.prepare(a)
    assert site.prepare(a, back=True) == "VERSION = 'a'\n"
    assert site.prepare(a, back=True) == "VERSION = 'a'\n", "now from what this node kept"
    with pytest.raises(RolledBack):
        site.prepare(a)


def test_going_from_a_to_b_and_back_leaves_each_as_it_was(site: Site) -> None:
    a, b = site.publish("a"), site.publish("b")
    assert [site.prepare(a), site.prepare(b)] == ["VERSION = 'a'\n", "VERSION = 'b'\n"]
    with pytest.raises(RolledBack):
        site.prepare(a)
    # A roll-back on purpose is a new publication of the old contents.
    publish(site.store, a, {}, key=site.key)
    assert site.prepare(a) == "VERSION = 'a'\n"
    assert site.progress == [], "nothing is fetched or unpacked again"


def test_what_is_only_fetched_ahead_makes_the_running_version_no_roll_back(site: Site) -> None:
    a, b = site.publish("a"), site.publish("b")
    site.prepare(a)
    site.preparer().prepare(Wanted("app", "b", b.digest, ahead=True), site.phases.append, lambda *_: None)
    assert site.prepare(a) == "VERSION = 'a'\n"
    site.prepare(b)
    with pytest.raises(RolledBack):
        site.prepare(a)


def test_a_blob_that_was_damaged_on_this_node_is_fetched_again(site: Site) -> None:
    bundle = site.publish("v1")
    (layer,) = bundle.layers
    kept = site.folder.blobs.blob(layer.digest)
    kept.write_bytes(b"\0" * layer.size_bytes)
    with pytest.raises(BlobCorrupt):
        site.prepare(bundle)
    assert site.phases == [Phase.VERIFYING]
    assert not kept.exists()
    assert site.prepare(bundle) == "VERSION = 'v1'\n"


def test_nothing_is_fetched_of_a_bundle_that_is_not_admitted(site: Site) -> None:
    stranger = SigningKey.generate(site.path / "stranger")
    for bundle, error in ((site.publish("v1", key=stranger), SignatureWrong), (site.publish("v2", unsigned=True), Unsigned)):
        with pytest.raises(error):
            site.prepare(bundle)
        assert site.phases == []
        assert not site.folder.blobs.digests()
    assert site.prepare(bundle, site.preparer(development=True)) == "VERSION = 'v2'\n"


def test_an_app_that_cannot_be_loaded_leaves_the_old_version_and_its_counter(site: Site) -> None:
    good, bad = site.publish("good"), site.publish("bad")
    site.prepare(good)
    site.sick = {"bad"}
    with pytest.raises(HealthCheckFailed):
        site.prepare(bad)
    assert site.phases == STEPS
    assert site.prepare(good) == "VERSION = 'good'\n", "a bundle that never ran does not make the running one a roll-back"


def test_a_bundle_that_the_store_does_not_have_is_said_so(site: Site) -> None:
    bundle = site.publish("v1")
    for path in (site.path / "store" / "manifests").rglob("*.json"):
        path.unlink()
    with pytest.raises(NotInStore):
        site.prepare(bundle)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (DiskFull("no room"), "make room"),
        (Unsigned("nobody vouches"), "--key"),
        (BlobCorrupt("other bytes"), "publish the bundle again"),
        (HealthCheckFailed("ImportError: no module"), "mend the app"),
        (StoreError("connection refused"), "RAYLINE_ENV_STORE"),
        (EnvError("?"), "agent's log"),
        (OSError("I/O error"), "agent's log"),
    ],
)
def test_every_failure_has_a_reason_and_a_remedy(error: Exception, remedy: str) -> None:
    failure = failure_of(error)
    assert str(error) in failure.reason
    assert remedy in failure.remedy


_LINK_CHAIN = (member("d/", kind=tarfile.DIRTYPE), symlink("d/up", ".."), symlink("out", "d/up/.."))

REFUSED: dict[str, tuple[type[EnvError], Callable[[Site], Bundle]]] = {
    "path slip": (PathEscape, lambda site: site.offer(member("../../evil", b"x"))),
    "link chain": (LinkEscape, lambda site: site.offer(*_LINK_CHAIN)),
    "hard link": (HardLinkInside, lambda site: site.offer(member("evil", kind=tarfile.LNKTYPE, link="/etc/passwd"))),
    "device": (SpecialFile, lambda site: site.offer(member("null", kind=tarfile.CHRTYPE))),
    "bomb": (ArchiveBomb, lambda site: site.offer(member("more", b"x"), files=1)),
    "truncated": (BlobTruncated, lambda site: site.damage(site.offer(), lambda data: data[:-1])),
    "one flipped byte": (BlobCorrupt, lambda site: site.damage(site.offer(), lambda data: bytes([data[0] ^ 1]) + data[1:])),
    "wrong signature": (SignatureWrong, lambda site: site.publish("v2", key=SigningKey.generate(site.path / "stranger"))),
    "rolled-back version": (RolledBack, lambda site: site.store.get_manifest("app@1").bundle),
    "wrong architecture": (WrongPlatform, lambda site: site.offer(host=Host("linux", "s390x", "glibc", (2, 17)))),
    "disk full": (DiskFull, lambda site: site.offer()),
    "environment missing": (NotInStore, lambda _: bundle_of(version="v2")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_each_broken_bundle_has_its_own_error_and_remedy_and_the_old_version_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    error, make = REFUSED[name]
    site.publish("v0")
    old = site.publish("v1")
    site.prepare(old)
    broken = make(site)
    if name == "disk full":
        monkeypatch.setattr("runtime_env.unpack.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    before = {path for path in site.path.rglob("*") if site.folder.path not in path.parents}
    with pytest.raises(error) as caught:
        site.prepare(broken)
    assert type(caught.value) is error, "an error of its own, not of its family"
    assert "agent's log" not in failure_of(caught.value).remedy
    assert {path for path in site.path.rglob("*") if site.folder.path not in path.parents} == before
    assert [path.name for path in (site.folder.unpacked / "envs").iterdir()] == [hex_of(old.digest)]
    assert not list((site.folder.unpacked / "tmp").iterdir())
    assert site.prepare(old) == "VERSION = 'v1'\n"


def test_what_no_app_needs_is_collected_once_something_new_is_ready(site: Site) -> None:
    site.folder = NodeFolder(path=site.path / "small", quota_bytes=0)
    site.folder.blobs._quota_bytes = 2**30
    a, b = site.publish("a"), site.publish("b")
    with site.folder.lease(a.digest):
        site.prepare(a)
    with site.folder.lease(b.digest):
        site.prepare(b)
        assert [path.name for path in (site.folder.unpacked / "envs").iterdir()] == [hex_of(b.digest)]
