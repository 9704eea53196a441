"""The build's small parts: settings of indexes, uv's words, relocation, scratch folders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rayline.app_spec import AppSpec, Environment, ModelSource, Requirement
from rayline.errors import BuildError, ConfigError, DiskFull, IndexUnreachable, NotRelocatable, PackageMissing, PinsConflict
from runtime_env.build.bytecode import compile_tree
from runtime_env.build.cache import BuildCache
from runtime_env.build.index_settings import uv_environment
from runtime_env.build.interpreters import Interpreter
from runtime_env.build.lock import Lock, Pin, inputs_digest, read_lock, resolve, write_lock
from runtime_env.build.own_layers import app_files
from runtime_env.build.relocation import relocate_binaries, relocate_scripts, require_relocatable
from runtime_env.build.uv_tool import Uv, explain
from runtime_env.bundle import LayerKind


def test_pips_settings_reach_uv_and_uvs_own_win(tmp_path: Path) -> None:
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text(
        "[global]\nindex-url = http://file/simple\nextra-index-url =\n  http://a\n  http://b\n"
    )
    base = {"HOME": str(tmp_path), "PIP_FIND_LINKS": "/one /two"}
    found = uv_environment(base)
    assert (found["UV_DEFAULT_INDEX"], found["UV_INDEX"], found["UV_FIND_LINKS"]) == (
        "http://file/simple",
        "http://a http://b",
        "/one,/two",
    )
    assert uv_environment({**base, "PIP_INDEX_URL": "http://variable"})["UV_DEFAULT_INDEX"] == "http://variable"
    assert uv_environment({**base, "UV_DEFAULT_INDEX": "http://uv"})["UV_DEFAULT_INDEX"] == "http://uv"


def test_a_named_index_comes_before_the_others(tmp_path: Path) -> None:
    base = {"HOME": str(tmp_path), "UV_INDEX": "http://other", "RAYLINE_INDEX_COMPANY_PACKAGES": "http://company"}
    assert uv_environment(base, ["company-packages"])["UV_INDEX"] == "http://company http://other"
    with pytest.raises(ConfigError, match="RAYLINE_INDEX_NOWHERE"):
        uv_environment(base, ["nowhere"])


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ("× No solution found when resolving dependencies:\n╰─▶ Because you require a<1 and a>2, …", PinsConflict),
        ("× No solution found\n╰─▶ Because a was not found in the package registry and you require a, …", PackageMissing),
        ("× No solution found\n╰─▶ Because a==1 has no wheels with a matching Python ABI tag …", PackageMissing),
        ("error: Failed to fetch: `http://me:hunter2@host/simple/a/`\n  Caused by: error sending request", IndexUnreachable),
        ("error: something else about a", BuildError),
    ],
)
def test_uvs_words_become_our_errors_with_who_asked_and_without_passwords(told: str, error: type[BuildError]) -> None:
    asked = [Requirement("a<1", "app.yaml:5"), Requirement("another", "app.yaml:6")]
    found = explain(told, asked)
    assert type(found) is error
    assert "app.yaml:5: a<1" in str(found)
    assert "app.yaml:6" not in str(found), "a name inside another is not meant"
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "told",
    ["error: failed to write to file `/cache/a`: No space left on device (os error 28)", "Disk quota exceeded (os error 122)"],
)
def test_a_disk_that_is_full_for_uv_is_told_as_such(told: str) -> None:
    with pytest.raises(DiskFull, match="UV_CACHE_DIR"):
        raise explain(told, [])


def test_bytecode_depends_on_the_source_alone_and_is_not_compared_with_it(tmp_path: Path) -> None:
    made = []
    for number, name in enumerate(("one", "another-place")):
        tree = tmp_path / name
        (tree / "package").mkdir(parents=True)
        (tree / "package" / "module.py").write_text("NAMES = {'a', 'b', 'c'}\n")
        (tree / "package" / "template.py").write_text("{{ no python }}\n")
        os.utime(tree / "package" / "module.py", (number, number))
        compile_tree(Path(sys.executable), tree)
        (compiled,) = tree.rglob("*.pyc")
        made.append((compiled.relative_to(tree), compiled.read_bytes()))
    assert made[0] == made[1]
    assert made[0][1][4:8] == (1).to_bytes(4, "little"), "by hash, unchecked: a node's clock says nothing"


class RecordedUv(Uv):
    """Resolves everything to one package, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(environment={})
        self.asked: tuple[str, ...] = ()
        self.read: dict[str, str] = {}

    def run(self, *arguments: str, folder: Path, requirements: Sequence[Requirement] = ()) -> str:
        self.asked = arguments
        self.read = {path.name: path.read_text() for path in folder.iterdir()}
        self.read["named"] = ", ".join(one.where for one in requirements)
        (folder / "lock.txt").write_text(f"a==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
        return ""


def test_constraints_earlier_pins_and_own_wheels_take_part_in_what_is_resolved_and_addresses_do_not(tmp_path: Path) -> None:
    environment = Environment(
        requirements=(Requirement("a", "app.yaml:4"),),
        constraints=(Requirement("b<2", "constraints.txt:1"),),
        indexes=("company-packages",),
        wheels=("wheels",),
    )
    before = Lock("3.11.7", "sha256:x", (Pin("b", "1.9", ("sha256:" + "1" * 64,)),))
    uv, interpreter = RecordedUv(), Interpreter(Path("/python"), "3.11.7", Path("/"), "uv")
    (tmp_path / "scratch").mkdir()
    lock = resolve(uv, interpreter, environment, (), app_root=tmp_path, scratch=tmp_path / "scratch", before=before)
    assert (uv.read["requirements.in"], uv.read["constraints.in"]) == ("a\n", "b<2\n")
    assert uv.read["lock.txt"].startswith("b==1.9")
    assert uv.read["named"] == "app.yaml:4, constraints.txt:1"
    assert {"--no-emit-index-url", "--no-emit-find-links", "--generate-hashes"} <= set(uv.asked)
    assert uv.asked[-2:] == ("--find-links", str(tmp_path / "wheels"))
    assert lock.pins == (Pin("a", "1.0", ("sha256:" + "0" * 64,)),)
    assert lock.inputs == inputs_digest(environment, ())
    assert lock.inputs != inputs_digest(replace(environment, constraints=()), ()), "another constraint resolves anew"


def test_a_disk_that_is_full_for_the_compiler_is_told_as_such(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'OSError: [Errno 28] No space left on device' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(DiskFull, match="make room"):
        compile_tree(python, tmp_path)


def test_scripts_start_the_python_beside_them(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "tool"
    script.write_text("#!/build/folder/bin/python3.11\nimport sys\nprint('ran', *sys.argv[1:])\n")
    (tmp_path / "bin" / "shell").write_text("#!/bin/sh\necho python\n")
    relocate_scripts(tmp_path / "bin")
    (tmp_path / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    moved = (tmp_path / "bin").rename(tmp_path / "a b")
    script = moved / "tool"
    script.chmod(0o755)
    done = subprocess.run([script, "x y"], capture_output=True, text=True, check=True)
    assert done.stdout == "ran x y\n"
    assert (moved / "shell").read_text() == "#!/bin/sh\necho python\n"


def test_a_binary_keeps_its_length_and_what_shares_the_end_of_its_folders_name(tmp_path: Path) -> None:
    prefix = Path("/root/.pyenv/versions/3.11.7")
    data = (
        b"\x7fELF"
        + b"/root/.pyenv/versions/3.11.7/lib\0"
        + b"x\0/root/.pyenv/versions/3.11.7\0"
        + b"/root/.pyenv/versions/3.11.7/share\0"
    )
    path = tmp_path / "python"
    path.write_bytes(data)
    relocate_binaries(tmp_path, prefix)
    made = path.read_bytes()
    assert len(made) == len(data)
    assert b"$ORIGIN/../lib\0" in made
    assert b"/versions/3.11.7\0" in made, "the linker may use its end as the text of the version"
    require_relocatable(tmp_path, [prefix], "python")


def test_a_file_or_link_that_names_its_build_folder_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"root": "/build/here/x"}')
    with pytest.raises(NotRelocatable, match=r"settings\.json names /build/here"):
        require_relocatable(tmp_path, [Path("/build/here")], "package")
    (tmp_path / "settings.json").unlink()
    (tmp_path / "link").symlink_to("/build/here/x")
    with pytest.raises(NotRelocatable, match="link"):
        require_relocatable(tmp_path, [Path("/build/here")], "package")


def test_an_apps_files_are_its_own(tmp_path: Path) -> None:
    for name in (
        *("feature.py", "data/table.csv", "notes/draft.txt", ".env", ".git/config", "__pycache__/feature.pyc", "env.lock"),
        *("model.bin", "wheels/a.whl", "vendor/lib.so"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    environment = Environment(wheels=("wheels",), libraries=("vendor",), exclude=("notes",))
    spec = AppSpec("a", "1", str(tmp_path), "feature:f", environment=environment, models=(ModelSource("m", "model.bin"),))
    assert [str(path) for path in app_files(spec)] == ["data/table.csv", "feature.py"]


def test_a_lock_is_read_as_it_was_written_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "env.lock"
    assert read_lock(path) is None
    pins = (Pin("a", "1.0", ("sha256:" + "0" * 64, "sha256:" + "1" * 64)), Pin("b", "2", ("sha256:" + "2" * 64,)))
    lock = Lock("3.11.7", "sha256:x", pins)
    write_lock(path, lock)
    assert read_lock(path) == lock
    path.write_text(path.read_text().replace("sha256:" + "2" * 64, ""))
    with pytest.raises(BuildError, match="b has no hash"):
        read_lock(path)
    path.write_text("a==1\n")
    with pytest.raises(BuildError, match="--upgrade"):
        read_lock(path)


def test_a_scratch_folder_in_use_is_not_swept_and_one_left_is(tmp_path: Path) -> None:
    cache = BuildCache(path=tmp_path)
    with cache.scratch() as used:
        left = tmp_path / "tmp" / "build-left"
        left.mkdir()
        left.with_suffix(".lock").touch()
        assert BuildCache(path=tmp_path).sweep() == 1
        assert (used.exists(), left.exists()) == (True, False)
    assert not list((tmp_path / "tmp").iterdir())


def test_a_layer_is_made_once_and_again_when_its_blob_is_gone_or_short(tmp_path: Path) -> None:
    cache = BuildCache(path=tmp_path)

    def make(tree: Path) -> None:
        (tree / "file").write_text("text")

    layer, made = cache.layer(LayerKind.APP, "app", ["inputs"], make)
    assert made
    assert cache.layer(LayerKind.APP, "app", ["inputs"], make) == (layer, False)
    assert cache.layer(LayerKind.APP, "app", ["other"], make) == (layer, True)
    blob = cache.blob(layer.digest)
    blob.chmod(0o644)
    blob.write_bytes(b"short")
    assert cache.layer(LayerKind.APP, "app", ["inputs"], make) == (layer, True)
    blob.unlink()
    assert cache.layer(LayerKind.APP, "app", ["inputs"], make) == (layer, True)


def test_a_build_that_fails_or_overflows_leaves_nothing(tmp_path: Path) -> None:
    cache = BuildCache(path=tmp_path)

    def full(tree: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull):
        cache.layer(LayerKind.APP, "app", ["inputs"], full)
    assert not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "layers").exists()
