"""Builds with real interpreters and uv, and a package index on loopback that counts: no other network is used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bench.range_server import RangeServer
from rayline.app_spec import AppSpec
from rayline.errors import (
    BlobCorrupt,
    BlobTruncated,
    BuildError,
    CondaMissing,
    ConfigError,
    HealthCheckFailed,
    IndexUnreachable,
    InterpreterMissing,
    PackageMissing,
    PinsConflict,
)
from rayline.manifest import load_manifest
from runtime_env.build import BuildCache, Builder, BuildOptions, Built
from runtime_env.build.builder import Progress
from runtime_env.build.interpreters import find_interpreters
from runtime_env.bundle import Bundle, LayerKind
from runtime_env.node.activation import Wanted
from runtime_env.node.folder import NodeFolder
from runtime_env.node.preparing import Prepared, Preparer
from runtime_env.peers.cache import BlobCache
from runtime_env.peers.node import PeerNode
from runtime_env.peers.source import PeerSource
from runtime_env.preflight import check_health
from runtime_env.process_environment import process_environment, python_of
from runtime_env.signing import SigningKey, Trust
from runtime_env.store import FolderStore, Store, open_store, publish
from runtime_env.unpack import unpack
from tests.support.packages import CountingIndex, serve_index, write_wheel
from tests.support.peer_network import TOKEN, PeerNetwork

pytestmark = pytest.mark.integration

_FOUND = find_interpreters()
PYTHON = next((one.minor for one in _FOUND), "")
OTHER = next((one.minor for one in _FOUND if one.minor != PYTHON), "")
needs_python = pytest.mark.skipif(not PYTHON, reason="no interpreter here that can be copied: uv python install 3.11")


@dataclass
class Workshop:
    """An index of tiny wheels, a build cache that all tests of a module share, and a node's folder."""

    index: CountingIndex
    cache: BuildCache
    node: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "PYENV_ROOT") if name in os.environ}
        return {**kept, "PIP_INDEX_URL": self.index.url, "PIP_CONFIG_FILE": os.devnull, "UV_HTTP_RETRIES": "0"}

    def build(self, spec: AppSpec, *, upgrade: bool = False, cache: BuildCache | None = None, **environment: str) -> Built:
        builder = Builder(
            cache=cache or self.cache, environment={**self.environment, **environment}, uv_cache=self.home / "uv-cache"
        )
        return builder.build(spec, BuildOptions(upgrade=upgrade, bare=True))

    def cache_copy(self, path: Path) -> BuildCache:
        """The cache as it is now, for a build that must not find what others make later."""
        self.cache.path.mkdir(exist_ok=True)
        shutil.copytree(self.cache.path, path, copy_function=os.link)
        return BuildCache(path=path)

    def unpack(self, built: Built) -> Path:
        return unpack(built.bundle, built.blob_paths, self.node)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    home = tmp_path_factory.mktemp("workshop")
    wheels = home / "wheels"
    write_wheel(wheels, "base", "1.0")
    write_wheel(wheels, "base", "2.0")
    write_wheel(wheels, "needs_one", "1.0", requires=["base<2"], scripts={"greet": "needs_one:main"}, files=_GREETING)
    write_wheel(wheels, "needs_two", "1.0", requires=["base>=2"])
    write_wheel(wheels, "elsewhere", "1.0", tag="cp311-cp311-win_amd64")
    with serve_index(wheels) as index:
        yield Workshop(index, BuildCache(path=home / "cache"), home / "node", home)


_GREETING = {"needs_one.py": "import sys\ndef main():\n    print('hello from', sys.executable)\n"}


CODE = "def f(job):\n    return job\n"


def app(folder: Path, env: str = "", code: str = CODE, rest: str = "", *, name: str = "demo", python: str = PYTHON) -> AppSpec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature.py").write_text(code)
    (folder / "app.yaml").write_text(f"name: {name}\nentrypoint: feature:f\nenv:\n  python: '{python}'\n{env}{rest}")
    return load_manifest(folder)


def run(root: Path, bundle: Bundle, code: str, base: Mapping[str, str] | None = None) -> str:
    environment = process_environment(root, bundle, base or {"PATH": "/usr/bin:/bin"})
    done = subprocess.run([python_of(root), "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def layer_digests(built: Built) -> dict[str, str]:
    return {layer.name: layer.digest for layer in built.bundle.layers}


NEEDS_ONE = "  requirements: [needs_one]\n"


# The build of an app's folder (the first argument) with a cache of its own (the second); JSON of what came of it.
_BUILD_ELSEWHERE = """
import json, os, socket, sys
from pathlib import Path
if os.geteuid() == 0:
    socket.sethostname("elsewhere")
os.umask(0o077)
from rayline.manifest import load_manifest
from runtime_env.build import BuildCache, Builder, BuildOptions
builder = Builder(cache=BuildCache(path=Path(sys.argv[2])), uv_cache=Path(sys.argv[3]))
built = builder.build(load_manifest(sys.argv[1]), BuildOptions(bare=True))
layers = {layer.name: layer.digest for layer in built.bundle.layers}
print(json.dumps([built.bundle.digest, layers, built.made, built.resolved, socket.gethostname()]))
"""


def build_elsewhere(workshop: Workshop, folder: Path, scratch: Path) -> list[Any]:
    """As another user of another machine would: HOME, time zone, language, umask and, where this is root, the machine's name."""
    home = Path(os.environ.get("HOME", "/"))
    pythons = {"UV_PYTHON_INSTALL_DIR": str(home / ".local/share/uv/python"), "PYENV_ROOT": str(home / ".pyenv")}
    kept = {name: os.environ[name] for name in ("UV_PYTHON_INSTALL_DIR", "PYENV_ROOT") if name in os.environ}
    (scratch / "home").mkdir(parents=True)
    others = {"HOME": str(scratch / "home"), "TZ": "Pacific/Kiritimati", "LANG": "C", "LC_ALL": "C", "USER": "somebody"}
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    command = [sys.executable, "-c", _BUILD_ELSEWHERE, str(folder), str(scratch / "cache"), str(scratch / "uv-cache")]
    done = subprocess.run(
        [*(["unshare", "--uts"] if os.geteuid() == 0 else []), *command],
        env={**workshop.environment, **pythons, **kept, **others},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout)
    return told


@needs_python
@pytest.mark.timeout(300)  # two interpreters are copied and compiled: seconds, but minutes where the machine is busy
def test_the_same_lock_gives_the_same_digest_in_another_folder_and_cache_to_another_user_elsewhere(
    workshop: Workshop, tmp_path: Path
) -> None:
    first = workshop.build(app(tmp_path / "one" / "app", NEEDS_ONE))
    shutil.copytree(tmp_path / "one" / "app", tmp_path / "another" / "place")
    digest, layers, made, resolved, host = build_elsewhere(workshop, tmp_path / "another" / "place", tmp_path / "elsewhere")
    assert host == "elsewhere" or os.geteuid() != 0
    assert set(made) == set(layers), "the second build shares nothing with the first"
    assert not resolved
    assert layers == layer_digests(first)
    assert digest == first.bundle.digest


_LOOK_AROUND = (
    'import sys; sys.path.insert(0, "/tmp/elsewhere/env/app"); import feature, ctypes, ssl, sysconfig; '
    'print(sys.version.split()[0], sysconfig.get_config_var("LIBDIR"))'
)


@needs_python
def test_a_bundle_runs_where_nothing_of_its_build_exists(workshop: Workshop, tmp_path: Path) -> None:
    code = "import base, needs_one, sys\nassert sys.prefix.startswith('/tmp/elsewhere'), sys.prefix\ndef f(job): ...\n"
    built = workshop.build(app(tmp_path / "app", NEEDS_ONE, code))
    root = workshop.unpack(built)
    hidden = [
        workshop.home,
        tmp_path / "app",
        Path(sys.prefix),
        *(one.prefix for one in _FOUND if str(one.prefix) != "/usr/local"),
    ]
    script = f"""
        set -e
        mkdir -p /tmp/elsewhere
        mount -t tmpfs none /tmp/elsewhere
        cp -a {root} /tmp/elsewhere/env
        for folder in {" ".join(map(str, hidden))}; do mount -t tmpfs none $folder; done
        cd /
        env -i /tmp/elsewhere/env/bin/greet
        env -i /tmp/elsewhere/env/bin/python3 -c '{_LOOK_AROUND}'
    """
    if os.geteuid() != 0:
        pytest.skip("mount namespaces need root")
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    Path("/tmp/elsewhere").rmdir()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *("hello", "from", "/tmp/elsewhere/env/bin/python3"),
        *(built.bundle.python, "/tmp/elsewhere/env/lib"),
    ]


@needs_python
def test_a_change_of_code_makes_and_moves_the_app_alone(workshop: Workshop, tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    before = workshop.build(app(tmp_path / "app", NEEDS_ONE))
    publish(store, before.bundle, before.blob_paths, key=None)
    after = workshop.build(app(tmp_path / "app", NEEDS_ONE, "def f(job):\n    return 2\n"))
    moved = publish(store, after.bundle, after.blob_paths, key=None).moved_bytes
    changed = {name for name, digest in layer_digests(after).items() if layer_digests(before)[name] != digest}
    assert (changed, after.made, after.resolved) == ({"app"}, ("app",), False)
    assert moved < 10_000


@needs_python
def test_a_change_of_one_requirement_moves_that_package_alone(workshop: Workshop, tmp_path: Path) -> None:
    before = layer_digests(workshop.build(app(tmp_path / "app", "  requirements: [base==1.0, needs_one]\n")))
    write_wheel(workshop.index.folder, "base", "1.1")
    after = layer_digests(workshop.build(app(tmp_path / "app", "  requirements: [base==1.1, needs_one]\n")))
    assert set(after.items()) - set(before.items()) <= {("base-1.1", after["base-1.1"]), ("app", after["app"])}


@needs_python
def test_contradicting_pins_are_told_with_the_lines_that_ask_for_them(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "requirements.txt").write_text("# ours\nneeds_one\nneeds_two\n")
    with pytest.raises(PinsConflict) as caught:
        workshop.build(app(tmp_path / "app", "  requirements_file: requirements.txt\n"))
    told = str(caught.value)
    assert "requirements.txt:2: needs_one" in told
    assert "requirements.txt:3: needs_two" in told
    assert "base" in told
    assert not (tmp_path / "app" / "env.lock").exists()


@needs_python
@pytest.mark.parametrize("requirement", ["nowhere", "base==9", "elsewhere"], ids=["package", "version", "wheel"])
def test_a_missing_package_version_or_wheel_is_named(workshop: Workshop, tmp_path: Path, requirement: str) -> None:
    with pytest.raises(PackageMissing, match=rf"(?s){requirement[:4]}.*app\.yaml:5: {requirement}.*env\.wheels"):
        workshop.build(app(tmp_path / "app", f"  requirements: [{requirement}]\n"))


@needs_python
def test_without_the_index_a_new_app_is_refused_and_a_known_one_is_built(workshop: Workshop, tmp_path: Path) -> None:
    known = app(tmp_path / "known", NEEDS_ONE)
    first = workshop.build(known)
    down = "http://user:secret@127.0.0.1:9/simple"
    before = len(workshop.index.requests)
    again = workshop.build(known, PIP_INDEX_URL=down)
    assert again.bundle.digest == first.bundle.digest
    with pytest.raises(IndexUnreachable) as caught:
        workshop.build(app(tmp_path / "new", "  requirements: [unheard_of]\n"), PIP_INDEX_URL=down)
    assert "secret" not in str(caught.value)
    assert workshop.index.requests[before:] == [], "nothing is asked for what is locked and built"


@needs_python
def test_a_build_that_fails_without_the_index_leaves_what_is_published_and_locked(workshop: Workshop, tmp_path: Path) -> None:
    store = FolderStore(path=tmp_path / "store")
    first = workshop.build(app(tmp_path / "app", NEEDS_ONE))
    publish(store, first.bundle, first.blob_paths, key=None)
    entries, blobs = store.entries(), sorted(store.blobs())
    lock = (tmp_path / "app" / "env.lock").read_bytes()
    changed = app(tmp_path / "app", "  requirements: [needs_one, unheard_of]\n")
    for upgrade in (False, True):
        with pytest.raises(IndexUnreachable):
            workshop.build(changed, upgrade=upgrade, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert (store.entries(), sorted(store.blobs())) == (entries, blobs)
    assert (tmp_path / "app" / "env.lock").read_bytes() == lock


@needs_python
@pytest.mark.parametrize("locked", [False, True])
def test_an_index_that_goes_down_in_the_middle_is_told_and_leaves_nothing_half_done(
    workshop: Workshop, tmp_path: Path, locked: bool
) -> None:
    write_wheel(workshop.index.folder, "fading", "1.0")
    cache = workshop.cache_copy(tmp_path / "cache")
    spec, lock = app(tmp_path / "app", "  requirements: [fading]\n"), tmp_path / "app" / "env.lock"
    if locked:
        Builder(cache=workshop.cache_copy(tmp_path / "another"), environment=workshop.environment).build(
            spec, BuildOptions(bare=True)
        )
    before, known = lock.read_bytes() if locked else None, sorted(cache.path.glob("layers/*"))

    def go_down(step: Progress) -> None:
        """Once the versions are known: before the package is installed, of which uv has nothing any more."""
        if step.what.startswith("python-"):
            workshop.index.is_down = True
            shutil.rmtree(tmp_path / "uv-cold", ignore_errors=True)

    builder = Builder(cache=cache, environment=workshop.environment, uv_cache=tmp_path / "uv-cold", progress=go_down)
    try:
        with pytest.raises(IndexUnreachable, match=r"(?s)does not answer.*503.*build again"):
            builder.build(spec, BuildOptions(bare=True))
    finally:
        workshop.index.is_down = False
    assert (lock.read_bytes() if lock.exists() else None) == before
    assert not list((cache.path / "tmp").iterdir())
    assert set(cache.path.glob("layers/*")) - set(known) == set()
    assert "fading-1.0" in layer_digests(workshop.build(spec, cache=cache))


@needs_python
def test_twenty_nodes_ask_the_index_nothing(workshop: Workshop, tmp_path: Path) -> None:
    built = workshop.build(app(tmp_path / "app", NEEDS_ONE))
    before = len(workshop.index.requests)
    # The interpreter's layer is the same for all and the slowest to unpack: one node shows that it works with it.
    check_health(workshop.unpack(built), built.bundle)
    light = replace(built.bundle, layers=tuple(one for one in built.bundle.layers if one.kind is not LayerKind.INTERPRETER))
    for number in range(20):
        unpack(light, built.blob_paths, tmp_path / f"node-{number}")
    assert len(workshop.index.requests) == before


@needs_python
def test_nodes_that_start_at_once_ask_the_index_nothing_and_read_the_bundle_from_the_store_once(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them as an agent before Ray: fetch from the others, verify, unpack, import the entrypoint."""
    requirements = "  requirements: [base==1.0, needs_one]\n"
    built = workshop.build(app(tmp_path / "app", requirements, "import needs_one\ndef f(job): ...\n"))
    key = SigningKey.generate(tmp_path / "key")
    publish(FolderStore(path=tmp_path / "store"), built.bundle, built.blob_paths, key=key)
    (tmp_path / "trust").write_text(f"ed25519 {key.public} test\n")
    wanted = Wanted("demo", "1", built.bundle.digest)
    asked = len(workshop.index.requests)
    assert asked, "the index that counts is the one that the build asked"
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.setenv(name, workshop.index.url)

    def start(node: PeerNode, cache: BlobCache, store: Store) -> Prepared:
        source = PeerSource(node=node, store=store, cache=cache, token=TOKEN)
        folder = NodeFolder(path=cache.path.parent, quota_bytes=2**40)
        trust = Trust.read(tmp_path / "trust")
        preparer = Preparer(folder=folder, store=store, source=source, trust=trust, check=check_health)
        with folder.lease(built.bundle.digest):
            return preparer.prepare(wanted, lambda _: None, lambda *_: None)

    with (
        RangeServer(folder=tmp_path / "store") as origin,
        PeerNetwork(tmp_path / "nodes") as network,
        ThreadPoolExecutor(4) as pool,
    ):
        store = open_store(origin.url)
        starts = []
        for number in range(4):
            NodeFolder(path=tmp_path / f"node-{number}", quota_bytes=2**40)
            blobs = tmp_path / f"node-{number}" / "blobs"
            node = network.add(f"node-{number}", store=store, cache=blobs)
            starts.append(pool.submit(start, node, BlobCache(path=blobs, quota_bytes=2**40), store))
        prepared = [one.result(timeout=100) for one in starts]
        assert origin.sent_bytes <= 1.2 * built.bundle.size_bytes
    assert len(workshop.index.requests) == asked
    assert {run(one.root, one.bundle, "import base; print(base.__version__)") for one in prepared} == {"1.0"}


@needs_python
def test_a_changed_wheel_under_a_locked_name_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    write_wheel(workshop.index.folder, "victim", "1.0")
    before = workshop.cache_copy(tmp_path / "before")
    spec = app(tmp_path / "app", "  requirements: [victim]\n")
    workshop.build(spec)
    write_wheel(workshop.index.folder, "victim", "1.0", files={"victim.py": "import os  # other contents\n"})
    builder = Builder(cache=before, environment=workshop.environment, uv_cache=tmp_path / "uv-cold")
    with pytest.raises(BuildError, match=r"(?i)hash"):
        builder.build(spec, BuildOptions(bare=True))


@needs_python
def test_a_named_index_is_a_setting_whose_address_enters_no_bundle(workshop: Workshop, tmp_path: Path) -> None:
    with serve_index(tmp_path / "private") as private:
        write_wheel(private.folder, "private_part", "1.0")
        spec = app(tmp_path / "app", "  requirements: [private_part]\n  indexes: [company-packages]\n")
        with pytest.raises(ConfigError, match="RAYLINE_INDEX_COMPANY_PACKAGES"):
            workshop.build(spec)
        address = private.url.replace("://", "://robot:hunter2@")
        built = workshop.build(spec, RAYLINE_INDEX_COMPANY_PACKAGES=address)
    root = workshop.unpack(built)
    everything = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    for word in (b"hunter2", private.url.encode(), str(tmp_path).encode(), str(workshop.home).encode()):
        assert word not in everything
    assert "private-part-1.0" in layer_digests(built)


@needs_python
def test_a_killed_build_leaves_nothing_half_done(workshop: Workshop, tmp_path: Path) -> None:
    write_wheel(workshop.index.folder, "slow", "1.0")
    app(tmp_path / "app", "  requirements: [slow]\n")
    cache = workshop.cache_copy(tmp_path / "cache").path
    known = sorted(cache.glob("layers/*"))
    program = (
        "import sys; from pathlib import Path; from rayline.manifest import load_manifest; from runtime_env.build import *\n"
        "Builder(cache=BuildCache(path=Path(sys.argv[2])), uv_cache=Path(sys.argv[3])).build(load_manifest(sys.argv[1]), "
        "BuildOptions(bare=True))"
    )
    workshop.index.hold.clear()
    command = [sys.executable, "-c", program, str(tmp_path / "app"), str(cache), str(tmp_path / "uv-cold")]
    process = subprocess.Popen(command, env=workshop.environment, start_new_session=True)
    try:
        asked = len(workshop.index.requests)
        deadline = time.monotonic() + 60
        while len(workshop.index.requests) == asked:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        workshop.index.hold.set()
    assert list((cache / "tmp").iterdir()), "it was killed in the middle"
    assert sorted(cache.glob("layers/*")) == known
    built = workshop.build(load_manifest(tmp_path / "app"), cache=BuildCache(path=cache))
    assert not list((cache / "tmp").iterdir())
    check_health(workshop.unpack(built), built.bundle)


@needs_python
@pytest.mark.skipif(shutil.which("gcc") is None, reason="makes a native library")
def test_native_extras_variables_and_models_are_the_apps_alone(workshop: Workshop, tmp_path: Path) -> None:
    folder = tmp_path / "with"
    (folder / "vendor").mkdir(parents=True)
    (folder / "vendor" / "answer.c").write_text("int answer(void) { return 42; }\n")
    subprocess.run(["gcc", "-shared", "-o", "vendor/libanswer.so", "vendor/answer.c"], cwd=folder, check=True)
    (folder / "tool").write_text("#!/bin/sh\necho tool runs\n")
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "tables").mkdir()
    (folder / "tables" / "one").write_text("1")
    code = "import ctypes, os, subprocess\nassert ctypes.CDLL('libanswer.so').answer() == 42\ndef f(job): ...\n"
    env = "  libraries: [vendor/libanswer.so]\n  binaries: [tool]\n  variables: {COLOUR: red}\n"
    models = "models:\n- {name: big-one, source: weights.bin, size: 7}\n- {name: tables, source: tables}\n"
    built = workshop.build(app(folder, env, code, models))
    root = workshop.unpack(built)
    check_health(root, built.bundle)
    told = (
        "import os, subprocess; print(subprocess.getoutput('tool'), os.environ['COLOUR'],"
        " open(os.environ['RAYLINE_MODEL_BIG_ONE']).read(), os.listdir(os.environ['RAYLINE_MODEL_TABLES']))"
    )
    assert run(root, built.bundle, told) == "tool runs red weights ['one']"
    assert not (root / "app" / "weights.bin").exists(), "a model is a layer of its own, not one of the app's files"
    plain = workshop.build(app(tmp_path / "without", name="other"))
    plain_root = workshop.unpack(plain)
    used = process_environment(root, built.bundle, {"PATH": "/usr/bin:/bin"})
    left = run(
        plain_root,
        plain.bundle,
        "import os, shutil; print(shutil.which('tool'), [n for n in os.environ if n.startswith('RAYLINE_MODEL')])",
        {name: value for name, value in used.items() if name not in ("PATH", "LD_LIBRARY_PATH", "COLOUR")},
    )
    assert left == "None []"


@needs_python
def test_a_model_that_is_not_what_is_declared_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    for line, error in (
        (f"digest: 'sha256:{'0' * 64}'", BlobCorrupt),
        ("size: 3", BlobTruncated),
    ):
        folder = tmp_path / error.__name__
        folder.mkdir()
        (folder / "m.bin").write_bytes(b"12345")
        with pytest.raises(error, match="model m"):
            workshop.build(app(folder, rest=f"models:\n- {{name: m, source: m.bin, {line}}}\n"))


@needs_python
def test_a_remote_model_is_fetched_once_by_its_digest_and_a_missing_one_is_told(workshop: Workshop, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/detector.bin", b"remote weights")
    digest = f"sha256:{hashlib.sha256(b'remote weights').hexdigest()}"
    line = f"models:\n- {{name: detector, source: 'memory://bucket/detector.bin', digest: '{digest}'}}\n"
    built = workshop.build(app(tmp_path / "app", rest=line))
    memory.rm_file("/bucket/detector.bin")
    assert workshop.build(app(tmp_path / "app", rest=line)).bundle.digest == built.bundle.digest
    root = workshop.unpack(built)
    assert (root / built.bundle.models[0].path).read_bytes() == b"remote weights"
    with pytest.raises(BuildError, match=r"model other: .* cannot be opened"):
        workshop.build(app(tmp_path / "app", rest=line.replace("detector,", "other,")))


@needs_python
def test_an_entrypoint_that_its_environment_cannot_import_is_found_before_traffic(workshop: Workshop, tmp_path: Path) -> None:
    built = workshop.build(app(tmp_path / "app", code="import numpy\ndef f(job): ...\n"))
    with pytest.raises(HealthCheckFailed, match=r"(?s)feature\.py.*No module named 'numpy'"):
        check_health(workshop.unpack(built), built.bundle)


@needs_python
@pytest.mark.skipif(not OTHER, reason="one Python only")
def test_two_pythons_and_two_versions_of_a_package_stand_side_by_side(workshop: Workshop, tmp_path: Path) -> None:
    told = []
    for minor, version in ((PYTHON, "1.0"), (OTHER, "2.0")):
        spec = app(tmp_path / minor, f"  requirements: [base=={version}]\n", name=f"app-{minor}", python=minor)
        built = workshop.build(spec)
        root = workshop.unpack(built)
        check_health(root, built.bundle)
        told.append(run(root, built.bundle, "import sys, base; print(sys.version[:4], base.__version__)"))
    assert told == [f"{PYTHON} 1.0", f"{OTHER} 2.0"]


@needs_python
def test_beside_numpy_1_the_pyarrow_is_one_that_can_be_imported_there(workshop: Workshop, tmp_path: Path) -> None:
    for name, version in (("numpy", "1.26.4"), ("numpy", "2.1"), ("pyarrow", "25.0"), ("pyarrow", "26.0")):
        write_wheel(workshop.index.folder, name, version)
    old = workshop.build(app(tmp_path / "old", "  requirements: ['numpy<2', pyarrow]\n"))
    new = workshop.build(app(tmp_path / "new", "  requirements: [numpy, pyarrow]\n"))
    assert set(old.bundle.packages) == {"numpy==1.26.4", "pyarrow==25.0"}
    assert set(new.bundle.packages) == {"numpy==2.1", "pyarrow==26.0"}
    with pytest.raises(PinsConflict, match=r"(?s)pyarrow<26.*numpy 1 needs an older pyarrow"):
        workshop.build(app(tmp_path / "both", "  requirements: ['numpy<2', 'pyarrow>=26']\n"))


def test_a_python_that_is_not_here_is_refused_with_what_is() -> None:
    from runtime_env.build.interpreters import choose_interpreter

    with pytest.raises(InterpreterMissing, match=r"uv python install 3\.99"):
        choose_interpreter("3.99")


def test_conda_is_refused_clearly_where_it_is_not(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text("dependencies: [python=3.11]\n")
    (tmp_path / "app.yaml").write_text("name: demo\nentrypoint: feature:f\nenv: {conda: environment.yml}\n")
    with pytest.raises(CondaMissing, match="needs conda"):
        workshop.build(load_manifest(tmp_path), PATH=str(tmp_path))


_FAKE_CONDA = """#!/bin/sh
# conda env create --quiet --yes --prefix PREFIX --file FILE
mkdir -p $6/bin $6/conda-meta && touch $6/conda-meta/python-3.11.9-h1.json && echo "prefix=$6" > $6/bin/settings
printf '#!/bin/sh\necho "prefix=$(dirname $(dirname $0))" > $(dirname $0)/settings\n' > $6/bin/conda-unpack
ln -s /bin/true $6/bin/none && rm $6/bin/none && cp /bin/true $6/bin/python3 && chmod +x $6/bin/*
"""
_FAKE_PACK = "#!/bin/sh\ntar -cf $5 -C $3 .\n"


def test_a_conda_environment_is_packed_and_put_right_where_it_is_activated(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in (("conda", _FAKE_CONDA), ("conda-pack", _FAKE_PACK)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "environment.yml").write_text("dependencies: [python=3.11]\n")
    (folder / "feature.py").write_text(CODE)
    (folder / "app.yaml").write_text("name: demo\nentrypoint: feature:f\nenv: {conda: environment.yml}\n")
    built = workshop.build(load_manifest(folder), PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    root = workshop.unpack(built)
    assert built.bundle.python == "3.11.9"
    assert (root / "bin" / "settings").read_text() == f"prefix={root}\n"
    assert workshop.unpack(built) == root
    check_health(root, built.bundle)


@needs_python
def test_the_command_line_builds_signs_compares_verifies_and_rolls_back(workshop: Workshop, tmp_path: Path) -> None:
    settings = {
        "RAYLINE_ENV_STORE": str(tmp_path / "store"),
        "RAYLINE_ENV_CACHE": str(workshop.cache.path),
        "RAYLINE_ENV_KEY": str(tmp_path / "key"),
        "RAYLINE_ENV_TRUST": str(tmp_path / "trust"),
        "UV_CACHE_DIR": str(workshop.home / "uv-cache"),
    }

    def rayline(*arguments: str, code: int = 0, **more: str) -> Any:
        command = [sys.executable, "-P", "-m", "deploy.cli", "env", *arguments, "-o", "json"]
        environment = {**workshop.environment, **settings, **more}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code != 1 else done.stderr

    folder = str(tmp_path / "app")
    app(tmp_path / "app", NEEDS_ONE)
    assert "rayline env keygen" in rayline("build", folder, "--bare", code=1, RAYLINE_ENV_KEY="")
    line = rayline("keygen", str(tmp_path / "key"))["trust_line"]
    (tmp_path / "trust").write_text(f"{line}\n")
    first = rayline("build", folder, "--bare")
    (tmp_path / "app" / "feature.py").write_text("def f(job):\n    return 2\n")
    second = rayline("build", folder, "--bare")
    assert (second["counter"], second["made"]) == (2, ["app"])
    assert second["moved_bytes"] < 2**20
    assert rayline("diff", "demo@1", "demo@2")["added"] == ["app"]
    assert rayline("verify", "demo", "--full")["in_order"]
    assert "nobody here trusts" in rayline("verify", "demo", code=1, RAYLINE_ENV_TRUST="")
    down = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    told = rayline("build", folder, "--bare", "--upgrade", code=1, **down)
    assert "the package index does not answer" in told
    assert "check PIP_INDEX_URL" in told
    assert "Traceback" not in told
    back = rayline("publish", "demo@1", **down)
    assert (back["counter"], back["digest"]) == (3, first["digest"])
    assert [row["counter"] for row in rayline("list", "demo")["bundles"]] == [1, 2, 3]
    assert rayline("gc", "--keep", "1")["blobs"] == 1
    assert rayline("show", "demo")["bundle"]["python"] == first["python"]
    subjects = {one["subject"]: one["health"] for one in rayline("doctor")["findings"]}
    assert (subjects["uv"], subjects["key"], subjects["trust"], subjects["store"]) == ("good",) * 4


@needs_python
def test_the_interpreter_layer_is_shared_by_all_apps_of_its_python(workshop: Workshop, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        layers = workshop.build(app(tmp_path / name, name=name)).bundle.layers
        digests.add(next(layer.digest for layer in layers if layer.kind is LayerKind.INTERPRETER))
    assert len(digests) == 1
