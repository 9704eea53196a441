"""The variables of an app's processes: its own paths first and models by name, whatever else is set; nothing of a neighbour's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime_env.bundle import Model
from runtime_env.process_environment import make_data_folders, process_environment
from tests.support.layers import bundle_of

BASE = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/usr/lib/cuda", "HOME": "/root"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "native" / "lib").mkdir(parents=True)
    return tmp_path


def test_native_extras_and_programs_of_the_bundle_come_before_the_machines(root: Path) -> None:
    found = process_environment(root, bundle_of(), BASE)
    assert found["PATH"] == f"{root}/native/bin:{root}/bin:/usr/bin:/bin"
    assert found["LD_LIBRARY_PATH"] == f"{root}/native/lib:/usr/lib/cuda"
    assert found["HOME"] == "/root"


def test_paths_among_the_apps_own_variables_do_not_hide_its_native_extras(root: Path) -> None:
    bundle = replace(bundle_of(), variables={"PATH": "/opt/tool", "LD_LIBRARY_PATH": "/opt/lib", "COLOUR": "red"})
    found = process_environment(root, bundle, BASE)
    assert found["PATH"] == f"{root}/native/bin:{root}/bin:/opt/tool"
    assert found["LD_LIBRARY_PATH"] == f"{root}/native/lib:/opt/lib"
    assert found["COLOUR"] == "red"


def test_an_app_without_native_extras_has_none_on_its_paths(tmp_path: Path) -> None:
    found = process_environment(tmp_path, bundle_of(), BASE)
    assert found["PATH"] == f"{tmp_path}/bin:/usr/bin:/bin"
    assert found["LD_LIBRARY_PATH"] == "/usr/lib/cuda"


def test_a_models_path_is_found_by_its_name_and_by_nothing_else(root: Path) -> None:
    model = Model("big-one", "models/big-one/weights.bin", "sha256:" + "0" * 64, 7)
    bundle = replace(bundle_of(), models=(model,), variables={"RAYLINE_MODEL_BIG_ONE": "/elsewhere"})
    found = process_environment(root, bundle, {**BASE, "RAYLINE_MODEL_NEIGHBOURS": "/its/model"})
    assert {name: value for name, value in found.items() if name.startswith("RAYLINE_MODEL_")} == {
        "RAYLINE_MODEL_BIG_ONE": f"{root}/models/big-one/weights.bin"
    }


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "VIRTUAL_ENV", "CONDA_PREFIX"])
def test_what_would_lead_into_another_environment_is_not_passed_on_but_may_be_asked_for(root: Path, name: str) -> None:
    base = {**BASE, name: "/another"}
    assert name not in process_environment(root, bundle_of(), base)
    assert process_environment(root, replace(bundle_of(), variables={name: "/own"}), base)[name] == "/own"


def test_an_app_writes_into_its_own_folders_and_not_where_its_neighbours_do(tmp_path: Path) -> None:
    base = {**BASE, "TMPDIR": "/tmp", "XDG_CACHE_HOME": "/root/.cache"}
    for app in ("one", "other"):
        make_data_folders(tmp_path / app)
        make_data_folders(tmp_path / app)
        found = process_environment(tmp_path, bundle_of(), base, data=tmp_path / app)
        assert (found["TMPDIR"], found["XDG_CACHE_HOME"]) == (f"{tmp_path}/{app}/tmp", f"{tmp_path}/{app}/cache")
        assert all(Path(found[name]).stat().st_mode & 0o777 == 0o700 for name in ("TMPDIR", "XDG_CACHE_HOME"))
    named = process_environment(tmp_path, replace(bundle_of(), variables={"TMPDIR": "/dev/shm"}), base, data=tmp_path / "one")
    assert (named["TMPDIR"], named["XDG_CACHE_HOME"]) == ("/dev/shm", f"{tmp_path}/one/cache")
    assert process_environment(tmp_path, bundle_of(), base)["TMPDIR"] == "/tmp", "a check of the environment has no pod"
